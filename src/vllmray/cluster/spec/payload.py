"""The files of this package that are copied into containers: payload/, whole."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib import metadata, resources
from pathlib import Path, PurePosixPath

from vllmray.cluster.spec.contents import PAYLOAD, SITE, Contents
from vllmray.hosts.base import File

PACKAGE = Path(str(resources.files("vllmray")))


def sources() -> dict[str, Path]:
    """The paths on this machine, by the path in containers: a folder, and single files."""
    return {**_package(), **_plugin()}


def _package() -> dict[str, Path]:
    return {f"{SITE}/vllmray/__init__.py": PACKAGE / "__init__.py", PAYLOAD: PACKAGE / "payload"}


def _plugin() -> dict[str, Path]:
    """What makes the plugin for simulated GPUs an installed distribution.

    VLLM finds plugins by entry point (Python packaging specifications, "Entry points"); so no image needs vllmray
    inside.
    """
    about = [file for file in metadata.files("vllmray") or () if file.name in ("METADATA", "entry_points.txt")]
    return {f"{SITE}/{file}": Path(str(file.locate())) for file in about}


@lru_cache(maxsize=1)
def contents() -> Contents:
    """All these files, without secrets."""
    return Contents(_read(_package()), _read(_plugin()))


def _read(places: Mapping[str, Path]) -> dict[str, bytes]:
    """The files, and those of the folders, by their path in containers."""
    read: dict[str, bytes] = {}
    for path, source in places.items():
        modules = sorted(source.rglob("*.py")) if source.is_dir() else [source]
        read |= {str(PurePosixPath(path, module.relative_to(source))): module.read_bytes() for module in modules}
    return read


def payload_files() -> tuple[File, ...]:
    """The files of a short-lived container that runs a program of payload/."""
    return tuple(File(path, content) for path, content in contents().payload.items())
