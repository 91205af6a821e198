"""How a container gets its GPUs, by accelerator; pure.

How a host provides them is a tuple of texts, as found there (cluster/probe/gpus.py): the CDI names that its daemon
lists, or the paths of device files, with `gid=109` for each group that they belong to; empty for the NVIDIA runtime,
which no daemon lists.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from vllmray.config.gpu_words import CDI_KIND, Gpus
from vllmray.config.models import ClusterConfig
from vllmray.errors import ConfigError
from vllmray.hosts.base import GpuRequest, Mount

NVIDIA_FILE = re.compile(r"/dev/nvidia(\d+)")
NVIDIA_CONTROL = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools")
"""What every program with CUDA opens in addition to the GPUs' own files (NVIDIA driver README, "Device nodes")."""
AMD_CONTROL = "/dev/kfd"
"""What every program with ROCm opens as well as the GPUs' own files (ROCm documentation, "Running ROCm containers")."""
RENDER_FILE = re.compile(r"/dev/dri/renderD(\d+)")
GROUP = "gid="
WSL_FILE, WSL_DRIVER = "/dev/dxg", "/usr/lib/wsl"
"""In WSL2: one file for all GPUs, and where Windows puts the driver's libraries (NVIDIA, "CUDA on WSL User Guide")."""
WSL_LIBRARIES = f"{WSL_DRIVER}/lib:/usr/local/nvidia/lib:/usr/local/nvidia/lib64:/usr/local/cuda/lib64"
"""Before the folders that NVIDIA's images name."""
_NUMBERED = re.compile(r"(\d+)(?::(\d+))?")


@dataclass(frozen=True, slots=True)
class DeviceAccess:
    """The part of a container's spec that gives it GPUs."""

    request: GpuRequest | None = None
    devices: tuple[str, ...] = ()
    group_add: tuple[str, ...] = ()
    cap_add: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


def device_access(config: ClusterConfig, devices: Sequence[str]) -> DeviceAccess:
    """NVIDIA by CDI, by the NVIDIA runtime or by device files; AMD by device files; CPU none.

    Args:
        devices: how the host provides GPUs.

    Raises:
        ConfigError: GPUs are named that the host does not have, or by names that it does not know.
    """
    match config.accelerator:
        case "nvidia" if any(device.startswith(CDI_KIND) for device in devices):
            return DeviceAccess(request=GpuRequest("cdi", device_ids=_cdi_names(config.gpus, devices)))
        case "nvidia" if any(NVIDIA_FILE.fullmatch(device) for device in devices):
            return DeviceAccess(devices=_nvidia_files(config.gpus, devices))
        case "nvidia" if WSL_FILE in devices:
            return _wsl(config.gpus)
        case "nvidia":
            return DeviceAccess(request=_request("nvidia", config.gpus))
        case "amd" if config.runtime == "native":
            return DeviceAccess(request=_request("amd", config.gpus))
        case "amd":
            return _amd(config.gpus, devices)
        case "cpu":
            return DeviceAccess()


def _request(driver: Literal["nvidia", "amd"], gpus: Gpus) -> GpuRequest:
    return GpuRequest(driver, device_ids=gpus.ids) if gpus.ids else GpuRequest(driver, count=gpus.count)


def _cdi_names(gpus: Gpus, devices: Sequence[str]) -> tuple[str, ...]:
    """CDI names from the daemon's list: it accepts no others, whatever the host's GPUs are called elsewhere."""
    listed = [device.removeprefix(CDI_KIND) for device in devices if device.startswith(CDI_KIND)]
    numbered = sorted((name for name in listed if _NUMBERED.fullmatch(name)), key=_number)
    each = numbered or [name for name in listed if name != "all"]
    if gpus.ids:
        known = {name.lower(): name for name in listed}
        chosen = [known.get(name.lower(), "") for name in gpus.ids]
    elif gpus.count < 0:
        chosen = ["all"] if "all" in listed else each
    else:
        chosen = each[: gpus.count]
    if not all(chosen) or len(chosen) < gpus.count:
        raise ConfigError(
            f"--gpus {gpus}: the daemon does not list such GPUs among its CDI devices",
            details="\n".join(CDI_KIND + name for name in listed),
            hint="Name GPUs of that list; `nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml` there renews it.",
        )
    return tuple(CDI_KIND + name for name in chosen)


def _number(name: str) -> tuple[int, int]:
    match = _NUMBERED.fullmatch(name)
    return (int(match[1]), int(match[2] or -1)) if match else (0, 0)


def _nvidia_files(gpus: Gpus, devices: Sequence[str]) -> tuple[str, ...]:
    cards = {str(int(match[1])): device for device in devices if (match := NVIDIA_FILE.fullmatch(device))}
    chosen = _chosen(gpus, dict(sorted(cards.items(), key=lambda card: int(card[0]))), "NVIDIA's runtime or CDI")
    return (*(device for device in NVIDIA_CONTROL if device in devices), *chosen)


def _amd(gpus: Gpus, devices: Sequence[str]) -> DeviceAccess:
    """As AMD's container documentation has it: the compute device, the render nodes, and permission to ptrace for RCCL.

    The files belong to a group of the host (render, or video), which the image may call by another number, or not know.
    """
    nodes = sorted((device for device in devices if RENDER_FILE.fullmatch(device)), key=lambda path: (len(path), path))
    cards = {str(index): node for index, node in enumerate(nodes)}
    groups = tuple(device.removeprefix(GROUP) for device in devices if device.startswith(GROUP))
    return DeviceAccess(
        # Before the host was checked, as in a dry run, it gets all of them.
        devices=(AMD_CONTROL, *(_chosen(gpus, cards, "a driver that knows other names") if cards else ("/dev/dri",))),
        group_add=groups if cards else ("video",),
        cap_add=("SYS_PTRACE",),
        security_opt=("seccomp=unconfined",),
    )


def _chosen(gpus: Gpus, cards: Mapping[str, str], without: str) -> tuple[str, ...]:
    """Files of the GPUs with these numbers, or of all, or of the first."""
    if not gpus.ids:
        return tuple(cards.values())[: gpus.count if gpus.count > 0 else None]
    if any(not name.isdecimal() for name in gpus.ids):
        what = f"without {without} GPUs can be named only by number"
    elif any(name not in cards for name in gpus.ids):
        what = "the host has no such GPU"
    else:
        return tuple(cards[name] for name in gpus.ids)
    raise ConfigError(
        f"--gpus {','.join(gpus.ids)}: {what}", hint=f"Name them by their numbers there: {','.join(cards)}"
    )


def _wsl(gpus: Gpus) -> DeviceAccess:
    """All GPUs by one device file; a variable says which of them CUDA uses."""
    names = gpus.ids or tuple(map(str, range(gpus.count)))
    return DeviceAccess(
        devices=(WSL_FILE,),
        mounts=(Mount("bind", WSL_DRIVER, WSL_DRIVER, read_only=True),),
        env={"LD_LIBRARY_PATH": WSL_LIBRARIES} | ({"CUDA_VISIBLE_DEVICES": ",".join(names)} if names else {}),
    )


def stated_gpus(config: ClusterConfig) -> int | None:
    """How many GPUs the settings say a node has; None when the host must be asked."""
    if config.accelerator == "cpu":
        return max(config.gpus.count, 1)
    return config.gpus.count if config.gpus.count > 0 else None
