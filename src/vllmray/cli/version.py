"""vllmray version"""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib import metadata
from typing import TYPE_CHECKING

from vllmray.cli.options import JsonOption
from vllmray.version import __version__

if TYPE_CHECKING:
    from vllmray.output.results import Versions


def version(as_json: JsonOption = False) -> None:
    """Print the versions of vllmray, Python and the Docker SDK."""
    from vllmray.output.envelope import envelope

    found = versions()
    if as_json:
        print(envelope("version", found))
        return
    for name, number in asdict(found).items():
        print(f"{name} {number or 'not installed'}")


def versions() -> Versions:
    """Versions of vllmray and of what it runs on."""
    from vllmray.output.results import Versions

    return Versions(
        vllmray=__version__,
        python=platform.python_version(),
        docker=_installed("docker"),
        typer=_installed("typer"),
        pydantic=_installed("pydantic"),
        platform=platform.platform(),
    )


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
