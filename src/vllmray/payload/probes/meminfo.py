"""The host's memory, as the kernel tells of it; also in a container. Standard library only."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vllmray.payload.protocol import Swap


def meminfo(path: str = "/proc/meminfo") -> dict[str, int]:
    """Bytes by name: MemTotal, MemAvailable, SwapTotal … (man 5 proc_meminfo)."""
    words = re.findall(r"^(\w+):\s+(\d+) kB", Path(path).read_text(), re.MULTILINE)
    return {name: int(size) * 1024 for name, size in words}


def swap(path: str = "/proc/meminfo") -> dict[str, Any] | None:
    """As protocol.Swap has it; None where the kernel does not tell."""
    sizes = meminfo(path)
    try:
        return asdict(Swap(total=sizes["SwapTotal"], used=sizes["SwapTotal"] - sizes["SwapFree"]))
    except KeyError:
        return None
