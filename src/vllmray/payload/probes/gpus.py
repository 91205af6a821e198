"""The GPUs of a container, or of a native process: how many, their memory, and the processes that use it.

Standard library only. vllmray may also call it in its own process for its own host. NVIDIA's GPUs are read by
nvidia-smi, and where that is missing by the driver's library (NVML); the driver brings both into containers. AMD's GPUs
are read from /sys. Sizes are bytes throughout.
"""

from __future__ import annotations

import ctypes
import glob
import os
import re
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vllmray.payload.probes.meminfo import meminfo
from vllmray.payload.protocol import Card, GpuProcess

MIB = 1024**2
LEAST_OF_A_CARD = 4 * 1024 * MIB
"""No GPU that vLLM supports has less; one that has is a processor's integrated graphics."""
AMD_VENDOR = "0x1002"  # the PCI vendor id of AMD's GPUs; a server's ASPEED or Intel graphics have render nodes too
QUERY = "index,uuid,name,memory.total,memory.used,memory.free,mig.mode.current"
NOT_APPLICABLE = ("[N/A]", "N/A", "[Not Supported]")
"""What nvidia-smi prints for memory that a GPU does not have; older drivers print the last."""
NVML_NOT_SUPPORTED = 3
"""NVML_ERROR_NOT_SUPPORTED (nvml.h), for the memory of GPUs with unified memory."""
_NAME = re.compile(r"\d+|GPU-[0-9a-fA-F-]+|MIG-[\w/-]+")
_ASK_S = 30
"""Without persistence mode the driver is loaded for each query, which takes a second per GPU."""


def visible_names(text: str) -> list[str]:
    """The GPUs that CUDA_VISIBLE_DEVICES names: all before the first invalid name, such as -1 or NoDevFiles.

    Source: CUDA C++ Programming Guide, "CUDA Environment Variables".
    """
    names = []
    for name in (part.strip() for part in text.split(",")):
        if not _NAME.fullmatch(name):
            break
        names.append(name)
    return names


def visible(accelerator: str) -> list[str] | None:
    """The GPUs that the environment makes visible to this process; None when it does not restrict them."""
    if accelerator == "amd":
        return _visible_to_hip(os.environ.get("ROCR_VISIBLE_DEVICES"), os.environ.get("HIP_VISIBLE_DEVICES"))
    named = os.environ.get("CUDA_VISIBLE_DEVICES") if accelerator == "nvidia" else None
    return None if named is None else visible_names(named)


def _visible_to_hip(below: str | None, above: str | None) -> list[str] | None:
    """ROCR_VISIBLE_DEVICES selects GPUs, and HIP_VISIBLE_DEVICES some of these, renumbered from 0
    (ROCm documentation, "GPU isolation techniques").
    """
    left = None if below is None else visible_names(below)
    if above is None or left is None:
        return left if above is None else visible_names(above)
    return [left[int(name)] for name in visible_names(above) if name.isdecimal() and int(name) < len(left)]


def gpus(accelerator: str) -> int:
    """How many GPUs this container, or native process, has: by the variable, else by the device files."""
    named = visible(accelerator)
    if named is not None:
        return len(named)
    if accelerator == "amd":
        return len(amd_nodes())
    files = glob.glob("/dev/nvidia[0-9]*") if accelerator == "nvidia" else []
    if accelerator == "nvidia" and not files and Path("/dev/dxg").exists():
        return len(nvidia_cards())  # WSL2 has one file for all of them
    return len(files)


def cards(accelerator: str) -> list[dict[str, Any]]:
    """The GPUs that this container or process was given: id, uuid, name, total, free, unified.

    Empty for simulated GPUs, which have no memory of their own, and when the memory of one could not be determined.
    """
    named = visible(accelerator)
    found = {"nvidia": nvidia_cards, "amd": amd_cards}.get(accelerator, list)()
    if named is None:
        return found
    chosen = [_named(name, found) for name in named]
    return [card for card in chosen if card] if all(chosen) else []


def _named(name: str, found: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The GPU by its number or the beginning of its UUID; CUDA accepts both."""
    return next((card for card in found if card["id"] == name or card["uuid"].startswith(name)), None)


def nvidia_cards() -> list[dict[str, Any]]:
    """All NVIDIA GPUs visible here; total is used plus free, as in CUDA."""
    rows = _smi(f"--query-gpu={QUERY}")
    if rows is None or any(row[-1] == "Enabled" for row in rows):  # nvidia-smi reports whole GPUs only
        return nvml_cards()
    found = [_card(row) for row in rows]
    return [card for card in found if card] if all(found) else []


def _smi(*options: str) -> list[list[str]] | None:
    """The table that nvidia-smi prints; None when it is missing, or fails."""
    for program in ("nvidia-smi", "/usr/lib/wsl/lib/nvidia-smi"):  # in WSL2 not on the PATH
        argv = [program, *options, "--format=csv,noheader,nounits"]
        try:
            said = subprocess.run(argv, capture_output=True, text=True, timeout=_ASK_S, check=True).stdout
        except (OSError, subprocess.SubprocessError):
            continue
        return [[word.strip() for word in line.split(",")] for line in said.splitlines() if line.strip()]
    return None


def _card(row: list[str]) -> dict[str, Any] | None:
    if len(row) != len(QUERY.split(",")):
        return None
    index, uuid, name, total, used, free, _ = row
    if used.isdigit() and free.isdigit():
        return _of(index, uuid, name, total=(int(used) + int(free)) * MIB, free=int(free) * MIB)
    return _unified(index, uuid, name) if total in NOT_APPLICABLE else None  # else an error: a lost GPU


def _of(index: str, uuid: str, name: str, *, total: int, free: int, unified: bool = False) -> dict[str, Any]:
    return asdict(Card(index, uuid, name, total=total, free=free, unified=unified))


def _unified(index: str, uuid: str, name: str) -> dict[str, Any] | None:
    """A GPU with unified memory (GB10, Jetson), whose fields nvidia-smi prints as [N/A]: its memory is the host's.

    VLLM does the same: total is MemTotal, free is MemAvailable (vllm/utils/mem_utils.py, MemorySnapshot).
    """
    sizes = meminfo()
    try:
        total, free = sizes["MemTotal"], sizes["MemAvailable"]
    except KeyError:
        return None
    return _of(index, uuid, name, total=total, free=free, unified=True)


class _Memory(ctypes.Structure):
    """nvmlMemory_t."""

    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


def nvml_cards(library: Any = None) -> list[dict[str, Any]]:
    """The same by NVML (nvml.h), with the MIG devices of a GPU that has some; empty without a driver."""
    try:
        nvml = library or ctypes.CDLL("libnvidia-ml.so.1")
        if nvml.nvmlInit_v2():
            return []
        count = ctypes.c_uint()
        nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
        found = []
        for index in range(count.value):
            handle = ctypes.c_void_p()
            if nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)) == 0:
                found += _slices(nvml, str(index), handle) or [_nvml_card(nvml, str(index), handle)]
        return [card for card in found if card] if all(found) else []
    except (OSError, AttributeError):
        return []


def _slices(nvml: Any, index: str, handle: Any) -> list[dict[str, Any] | None]:
    """The MIG devices of a GPU; empty when it has none."""
    most = ctypes.c_uint()
    if nvml.nvmlDeviceGetMaxMigDeviceCount(handle, ctypes.byref(most)):
        return []
    found: list[dict[str, Any] | None] = []
    for number in range(most.value):
        part = ctypes.c_void_p()
        if nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number, ctypes.byref(part)) == 0:
            found.append(_nvml_card(nvml, f"{index}:{number}", part))
    return found


def _nvml_card(nvml: Any, index: str, handle: Any) -> dict[str, Any] | None:
    uuid, name, memory = ctypes.create_string_buffer(96), ctypes.create_string_buffer(96), _Memory()
    nvml.nvmlDeviceGetUUID(handle, uuid, 96)
    nvml.nvmlDeviceGetName(handle, name, 96)
    words = (index, uuid.value.decode(), name.value.decode())
    error = nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory))
    if error:
        return _unified(*words) if error == NVML_NOT_SUPPORTED else None
    return _of(*words, total=memory.total, free=memory.free)


def amd_nodes(folder: str = "/dev/dri", sysfs: str = "/sys/class/drm") -> list[str]:
    """The render nodes of AMD GPUs, in the order of their numbers, without those of other vendors."""

    def is_amd(name: str) -> bool:
        try:
            return Path(sysfs, name, "device/vendor").read_text().strip() == AMD_VENDOR
        except OSError:
            return False

    names = [Path(path).name for path in glob.glob(f"{folder}/renderD*")]
    return sorted(filter(is_amd, names), key=lambda name: int(name.removeprefix("renderD")))


def amd_cards(folder: str = "/dev/dri", sysfs: str = "/sys/class/drm") -> list[dict[str, Any]]:
    """AMD GPUs by amdgpu's files in /sys (Linux, Documentation/gpu/amdgpu/driver-misc: mem_info_vram_*).

    Empty for integrated graphics: their VRAM is only what the firmware reserved; programs use the host's memory, and
    how much of it is not known.
    """
    found = []
    for index, node in enumerate(amd_nodes(folder, sysfs)):
        device = Path(sysfs, node, "device")
        try:
            total = int((device / "mem_info_vram_total").read_text())
            used = int((device / "mem_info_vram_used").read_text())
        except (OSError, ValueError):
            return []
        if total < LEAST_OF_A_CARD:
            return []
        found.append(_of(str(index), node, _product(device), total=total, free=total - used))
    return found


def _product(device: Path) -> str:
    try:
        return (device / "product_name").read_text().strip() or "AMD GPU"
    except OSError:
        return "AMD GPU"


def holders(accelerator: str, users: str = "/etc/passwd") -> list[dict[str, Any]]:
    """The processes with memory on NVIDIA GPUs: gpu (uuid), pid, user, program, memory.

    Processes of another PID namespace have the host's PIDs, and can't be looked up here.

    Args:
        users: the file with the host's users.
    """
    rows = (_smi("--query-compute-apps=gpu_uuid,pid,used_memory,process_name") or []) if accelerator == "nvidia" else []
    names = _user_names(users)
    return [
        asdict(
            GpuProcess(
                gpu=row[0],
                pid=int(row[1]),
                user=_owner(row[1], names),
                program=_program(row[1]) or ",".join(row[3:]),
                memory=int(row[2]) * MIB if row[2].isdigit() else None,
            )
        )
        for row in rows
        if len(row) >= 4 and row[1].isdigit()
    ]


def _user_names(users: str) -> dict[int, str]:
    try:
        lines = [line.split(":") for line in Path(users).read_text(errors="replace").splitlines()]
    except OSError:
        return {}
    return {int(line[2]): line[0] for line in lines if len(line) > 2 and line[2].isdigit()}


def _owner(pid: str, names: dict[int, str]) -> str:
    try:
        uid = Path("/proc", pid).stat().st_uid
    except OSError:
        return ""
    return names.get(uid, str(uid))


def _program(pid: str) -> str:
    """The program's name and its script or module; empty where it can't be read. Other arguments may be secrets."""
    try:
        words = [word.decode(errors="replace") for word in Path("/proc", pid, "cmdline").read_bytes().split(b"\0")]
    except OSError:
        return ""
    shown = [words[0].rpartition("/")[2] if words[0].startswith("/") else words[0]]
    if words[1:2] == ["-m"]:
        shown += words[1:3]
    elif len(words) > 1 and not words[1].startswith("-"):
        shown.append(words[1])
    return " ".join(shown)[:120].strip()


def device_files(accelerator: str, dev: str = "/dev", sysfs: str = "/sys/class/drm") -> list[str]:
    """The host's device files of GPUs, by their paths there, and `gid=N` for each group of AMD's.

    Args:
        dev: where the host's /dev is mounted.
    """
    if accelerator != "amd":
        return sorted(f"/dev/{Path(path).name}" for path in (*glob.glob(f"{dev}/nvidia*"), *glob.glob(f"{dev}/dxg")))
    nodes = [f"dri/{name}" for name in amd_nodes(f"{dev}/dri", sysfs)]
    files = ["kfd", *nodes] if nodes and Path(dev, "kfd").exists() else []
    groups = sorted({Path(dev, name).stat().st_gid for name in files} - {0})
    return [*(f"/dev/{name}" for name in files), *(f"gid={group}" for group in groups)]


def gpu_answer(request: dict[str, Any]) -> dict[str, Any]:
    """The part about GPUs of host.py's answer; see protocol.HostAnswer for the fields."""
    accelerator = request.get("accelerator", "")
    if "files" in request:
        return {"files": device_files(accelerator, request["files"])}
    found = cards(accelerator)
    answer: dict[str, Any] = {
        "gpus": gpus(accelerator),
        "cards": found,
    }
    if "users" in request:
        answer["holders"] = holders(accelerator, request["users"])
    return answer
