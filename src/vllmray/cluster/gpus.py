"""How a container gets at its GPUs, by accelerator; pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from vllmray.config.models import ClusterConfig
from vllmray.errors import ConfigError
from vllmray.hosts.base import GpuRequest

NVIDIA_CDI = "nvidia.com/gpu="
NVIDIA_FILE = re.compile(r"/dev/nvidia(\d+)")
NVIDIA_CONTROL = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools")
"""What every program with CUDA opens beside the GPUs' own files (NVIDIA driver README, "Device nodes")."""
RENDER_NODE = 128  # /dev/dri/renderD128 is the first GPU's (Linux drm: minors of render nodes start at 128)


@dataclass(frozen=True, slots=True)
class DeviceAccess:
    """The part of a container's spec that gives it GPUs."""

    request: GpuRequest | None = None
    devices: tuple[str, ...] = ()
    group_add: tuple[str, ...] = ()
    cap_add: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()


def device_access(config: ClusterConfig, devices: Sequence[str]) -> DeviceAccess:
    """NVIDIA by CDI, by the NVIDIA runtime or by device files; AMD by device files; CPU none.

    Args:
        devices: how the host gives NVIDIA GPUs: CDI names, or paths of device files; empty for the NVIDIA runtime.

    Raises:
        ConfigError: GPUs of device files are named by something else than their numbers.
    """
    match config.accelerator:
        case "nvidia" if any(NVIDIA_FILE.fullmatch(device) for device in devices):
            return DeviceAccess(devices=_nvidia_files(config, devices))
        case "nvidia":
            return DeviceAccess(request=_nvidia(config, devices))
        case "amd":
            return _amd(config)
        case "cpu":
            return DeviceAccess()


def _nvidia(config: ClusterConfig, cdi_devices: Sequence[str]) -> GpuRequest:
    count, ids = config.gpus.count, config.gpus.ids
    if not any(device.startswith(NVIDIA_CDI) for device in cdi_devices):
        return GpuRequest("nvidia", device_ids=ids) if ids else GpuRequest("nvidia", count=count)
    names = ids or (("all",) if count < 0 else tuple(str(index) for index in range(count)))
    return GpuRequest("cdi", device_ids=tuple(NVIDIA_CDI + name for name in names))


def _nvidia_files(config: ClusterConfig, devices: Sequence[str]) -> tuple[str, ...]:
    count, ids = config.gpus.count, config.gpus.ids
    cards = sorted(int(match[1]) for match in map(NVIDIA_FILE.fullmatch, devices) if match)
    if any(not name.isdecimal() for name in ids):
        raise ConfigError(
            f"--gpus {','.join(ids)}: without NVIDIA's runtime or CDI a host gives GPUs by number alone",
            hint=f"Name them by their numbers there: {','.join(map(str, cards))}",
        )
    chosen = ids or (cards if count < 0 else cards[:count])
    return (*(device for device in NVIDIA_CONTROL if device in devices), *(f"/dev/nvidia{card}" for card in chosen))


def _amd(config: ClusterConfig) -> DeviceAccess:
    """As AMD's container documentation has it: the compute device, the render nodes, and leave to trace for RCCL."""
    ids = config.gpus.ids or tuple(str(index) for index in range(max(config.gpus.count, 0)))
    cards = tuple(f"/dev/dri/renderD{RENDER_NODE + int(index)}" for index in ids) or ("/dev/dri",)
    return DeviceAccess(
        devices=("/dev/kfd", *cards),
        group_add=("video",),
        cap_add=("SYS_PTRACE",),
        security_opt=("seccomp=unconfined",),
    )


def stated_gpus(config: ClusterConfig) -> int | None:
    """How many GPUs the settings say a node has; None when the host must be asked."""
    if config.accelerator == "cpu":
        return max(config.gpus.count, 1)
    return config.gpus.count if config.gpus.count > 0 else None
