"""Versions of what a command is made of."""

from __future__ import annotations

import platform
from importlib import metadata

from vllmray.version import __version__

LIBRARIES = ("docker", "pydantic", "typer", "huggingface-hub")


def versions() -> dict[str, str]:
    """By name: vllmray, Python, the platform and the libraries that errors are most often about."""
    found = {"vllmray": __version__, "python": platform.python_version(), "platform": platform.platform()}
    return found | {name: _installed(name) for name in LIBRARIES}


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
