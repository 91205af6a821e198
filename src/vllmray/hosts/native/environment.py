"""The environment of a node's processes: what a container would have, and what this machine's programs need; pure."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from vllmray.hosts.base import ContainerSpec, GpuRequest
from vllmray.payload.probes.gpus import visible_names

ROCR = "ROCR_VISIBLE_DEVICES"
# What a node takes over from the user's own environment: where programs and libraries are, what names them, proxies
# and certificates, which GPUs a batch system gave to this job, which instructions oneDNN may use (its documentation,
# "CPU Dispatcher Control"). All else may be secret or meant for another program.
TAKEN_OVER = (
    *("HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "XDG_CACHE_HOME"),
    *("LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH", "ROCM_PATH", "CONDA_PREFIX", "VIRTUAL_ENV"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
    *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"),
    "ONEDNN_MAX_CPU_ISA",
)


def environment(spec: ContainerSpec, own: Mapping[str, str]) -> dict[str, str]:
    """All variables but the spec's; own is the environment of the user who starts the node."""
    env = {name: own[name] for name in TAKEN_OVER if name in own}
    env["PATH"] = f"{Path(spec.image).parent}{os.pathsep}{own.get('PATH') or os.defpath}"
    return env | visible_gpus(spec, env)


def visible_gpus(spec: ContainerSpec, env: Mapping[str, str]) -> dict[str, str]:
    """The variables that leave a process only the GPUs that a container would be given; a count takes the first ones.

    CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER: CUDA C++ Programming Guide, "CUDA Environment Variables"; in that order
    numbers are nvidia-smi's.
    """
    gpus = spec.gpus
    if gpus is None:
        return {}
    if gpus.driver == "amd":
        return _visible_to_hip(gpus, env)
    order = {"CUDA_DEVICE_ORDER": env.get("CUDA_DEVICE_ORDER", "PCI_BUS_ID")}
    if gpus.device_ids:
        return order | {"CUDA_VISIBLE_DEVICES": ",".join(gpus.device_ids)}
    if gpus.count > 0:
        return order | {"CUDA_VISIBLE_DEVICES": ",".join(_first(gpus.count, env.get("CUDA_VISIBLE_DEVICES")))}
    return order


def _visible_to_hip(gpus: GpuRequest, env: Mapping[str, str]) -> dict[str, str]:
    """Ray takes HIP_VISIBLE_DEVICES, and ends where only ROCR_VISIBLE_DEVICES is set (ray 2.60,
    ray/_private/accelerators/amd_gpu.py). HIP counts from 0 what ROCR leaves (ROCm, "GPU isolation techniques").
    """
    if gpus.device_ids:  # the host's own numbers, whatever was left to this user
        names = ",".join(gpus.device_ids)
        if ROCR not in env:
            return {"HIP_VISIBLE_DEVICES": names}
        return {ROCR: names, "HIP_VISIBLE_DEVICES": ",".join(map(str, range(len(gpus.device_ids))))}
    given, below = env.get("HIP_VISIBLE_DEVICES"), env.get(ROCR)
    if given is None and below is not None:
        given = ",".join(str(index) for index in range(len(visible_names(below))))
    if gpus.count > 0:
        return {"HIP_VISIBLE_DEVICES": ",".join(_first(gpus.count, given))}
    return {} if given is None else {"HIP_VISIBLE_DEVICES": given}


def _first(count: int, given: str | None) -> list[str]:
    """The first of those that the environment leaves, or of all."""
    return [str(index) for index in range(count)] if given is None else visible_names(given)[:count]
