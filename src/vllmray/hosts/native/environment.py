"""The environment of a node's processes: what a container would have, and what this machine's programs need; pure."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from vllmray.hosts.base import ContainerSpec

RENDER_NODE, FIRST_RENDER_NODE = "/dev/dri/renderD", 128
# What a node takes over from the user's own environment: where programs and libraries are, what names them, proxies
# and certificates, which GPUs a batch system gave to this job. All else may be secret or meant for another program.
TAKEN_OVER = (
    *("HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "XDG_CACHE_HOME"),
    *("LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH", "ROCM_PATH", "CONDA_PREFIX", "VIRTUAL_ENV"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
    *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"),
)


def environment(spec: ContainerSpec, own: Mapping[str, str]) -> dict[str, str]:
    """All but the spec's own variables; own is the environment of the user who starts the node."""
    env = {name: own[name] for name in TAKEN_OVER if name in own}
    env["PATH"] = f"{Path(spec.image).parent}{os.pathsep}{own.get('PATH') or os.defpath}"
    return env | _visible_gpus(spec, env)


def _visible_gpus(spec: ContainerSpec, env: Mapping[str, str]) -> dict[str, str]:
    """The variables that leave a process only the GPUs that a container would be given; a count takes the first ones.

    CUDA_VISIBLE_DEVICES: CUDA C Programming Guide, "CUDA Environment Variables". ROCR_VISIBLE_DEVICES: ROCm
    documentation, "GPU isolation techniques".
    """
    cards = [device.removeprefix(RENDER_NODE) for device in spec.devices if device.startswith(RENDER_NODE)]
    if cards:
        return {"ROCR_VISIBLE_DEVICES": ",".join(str(int(card) - FIRST_RENDER_NODE) for card in cards)}
    if spec.gpus and spec.gpus.device_ids:
        return {"CUDA_VISIBLE_DEVICES": ",".join(spec.gpus.device_ids)}
    if spec.gpus and spec.gpus.count > 0:
        given = env.get("CUDA_VISIBLE_DEVICES")
        ids = given.split(",") if given else [str(index) for index in range(spec.gpus.count)]
        return {"CUDA_VISIBLE_DEVICES": ",".join(ids[: spec.gpus.count])}
    return {}
