"""How a container gets at its GPUs, by accelerator; pure."""

from __future__ import annotations

from dataclasses import dataclass

from vllmray.config.models import ClusterConfig
from vllmray.hosts.base import GpuRequest

NVIDIA_CDI = "nvidia.com/gpu="
RENDER_NODE = 128  # /dev/dri/renderD128 is the first GPU's (Linux drm: minors of render nodes start at 128)


@dataclass(frozen=True, slots=True)
class DeviceAccess:
    """The part of a container's spec that gives it GPUs."""

    request: GpuRequest | None = None
    devices: tuple[str, ...] = ()
    group_add: tuple[str, ...] = ()
    cap_add: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()


def device_access(config: ClusterConfig, cdi_devices: tuple[str, ...]) -> DeviceAccess:
    """NVIDIA by CDI where the daemon lists its devices, else by the NVIDIA runtime; AMD by device files; CPU none."""
    match config.accelerator:
        case "nvidia":
            return DeviceAccess(request=_nvidia(config, cdi_devices))
        case "amd":
            return _amd(config)
        case "cpu":
            return DeviceAccess()


def _nvidia(config: ClusterConfig, cdi_devices: tuple[str, ...]) -> GpuRequest:
    count, ids = config.gpus.count, config.gpus.ids
    if not any(device.startswith(NVIDIA_CDI) for device in cdi_devices):
        return GpuRequest("nvidia", device_ids=ids) if ids else GpuRequest("nvidia", count=count)
    names = ids or (("all",) if count < 0 else tuple(str(index) for index in range(count)))
    return GpuRequest("cdi", device_ids=tuple(NVIDIA_CDI + name for name in names))


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
