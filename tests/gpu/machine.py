"""What the GPUs of this machine are, and what is on them, by nvidia-smi."""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from dataclasses import dataclass

GIB = 1024**3
MIB = 1024**2
FREE_MIB = 1024
"""A GPU with less than this in use has nothing left on it: a driver keeps some hundred MiB for itself."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One of them; bytes."""

    index: int
    name: str
    total: int
    used: int


def _smi(*options: str) -> list[list[str]]:
    argv = ["nvidia-smi", *options, "--format=csv,noheader,nounits"]
    said = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout
    return [[word.strip() for word in line.split(",")] for line in said.splitlines() if line.strip()]


def gpus() -> list[Gpu]:
    """Raises FileNotFoundError, or CalledProcessError, where there are none."""
    rows = _smi("--query-gpu=index,name,memory.total,memory.used")
    return [Gpu(int(index), name, int(total) * MIB, int(used) * MIB) for index, name, total, used in rows]


def programs() -> list[str]:
    """What has memory of a GPU, a line each."""
    return [" ".join(row) for row in _smi("--query-compute-apps=pid,process_name,used_memory")]


def leftovers(seconds: float = 30) -> list[str]:
    """What is still on the GPUs that long after everything ended; empty as soon as nothing is."""
    deadline = time.monotonic() + seconds
    while True:
        found = programs() + [f"GPU {gpu.index}: {gpu.used // MIB} MiB" for gpu in gpus() if gpu.used > FREE_MIB * MIB]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.5)


def versions(python: str = sys.executable) -> dict[str, str]:
    """Of what runs on the GPUs, in that Python's environment."""
    script = (
        "from importlib import metadata\nfor name in ('vllm', 'ray', 'torch', 'vllmray'):\n"
        "    try: print(name, metadata.version(name))\n    except metadata.PackageNotFoundError: print(name, 'none')"
    )
    said = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True).stdout
    return dict(line.split(" ", 1) for line in said.splitlines()) | {"python": platform.python_version()}


def driver() -> str:
    return _smi("--query-gpu=driver_version")[0][0]
