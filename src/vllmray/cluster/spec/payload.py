"""The files of this package that are copied into containers: payload/, whole."""

from __future__ import annotations

from functools import lru_cache
from importlib import metadata, resources
from pathlib import Path

from vllmray.cluster.spec.contents import PAYLOAD, SITE, Contents
from vllmray.hosts.base import File

PACKAGE = Path(str(resources.files("vllmray")))


def sources() -> dict[str, Path]:
    """Where on this machine it lies, by the path in containers: a folder, and single files."""
    return {PAYLOAD: PACKAGE / "payload", f"{SITE}/vllmray/__init__.py": PACKAGE / "__init__.py", **_plugin()}


def _plugin() -> dict[str, Path]:
    """What makes the plugin for simulated GPUs an installed distribution.

    VLLM finds plugins by entry point (Python packaging specifications, "Entry points"); so no image needs vllmray
    inside.
    """
    about = [file for file in metadata.files("vllmray") or () if file.name in ("METADATA", "entry_points.txt")]
    return {f"{SITE}/{file}": Path(str(file.locate())) for file in about}


@lru_cache(maxsize=1)
def contents() -> Contents:
    """All of it, without secrets."""
    folder = PACKAGE / "payload"
    modules = {f"{PAYLOAD}/{path.relative_to(folder)}": path.read_bytes() for path in sorted(folder.rglob("*.py"))}
    package = {f"{SITE}/vllmray/__init__.py": (PACKAGE / "__init__.py").read_bytes()}
    return Contents({**package, **modules}, {path: source.read_bytes() for path, source in _plugin().items()})


def payload_files() -> tuple[File, ...]:
    """What a short-lived container needs that runs a program of it."""
    return tuple(File(path, content) for path, content in contents().payload.items())
