"""Used and total memory of a host's GPUs, as its node sees them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from vllmray.cluster.probe.short_lived import exec_to_end
from vllmray.errors import HostError
from vllmray.hosts.base import Host

MIB = 1024**2
# NVIDIA's own table (nvidia-smi --help-query-gpu): memory in MiB. It comes into containers with the driver.
ASK = ("nvidia-smi", "--query-gpu=index,name,memory.used,memory.total", "--format=csv,noheader,nounits")
SHORT_S = 10.0
"""A driver that is not kept loaded (persistence mode) is loaded for each question, a second a GPU."""


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """One GPU of a host; bytes."""

    index: int
    name: str
    used: int
    total: int


def gpu_memory(host: Host, container: str, settings: Mapping[str, Any]) -> tuple[GpuMemory, ...]:
    """The GPUs that a running container was given; empty where they have no memory of their own, or it can't be read.

    Args:
        settings: what the container carries.
    """
    if settings.get("accelerator") != "nvidia":
        return ()
    with suppress(HostError):
        return tuple(gpu for line in exec_to_end(host, container, ASK, SHORT_S) for gpu in _read(line))
    return ()


def _read(line: str) -> list[GpuMemory]:
    """A line of the table; none of another kind."""
    try:
        index, name, used, total = (word.strip() for word in line.split(","))
        return [GpuMemory(int(index), name, int(used) * MIB, int(total) * MIB)]
    except ValueError:
        return []
