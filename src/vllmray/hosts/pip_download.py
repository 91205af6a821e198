"""Wheels from the user's package index, fetched by pip: its configuration, mirrors and proxies are the user's own."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path

from vllmray.errors import HostError


def download(wheels: Mapping[str, str], folder: Path, progress: Callable[[int, int], None]) -> None:
    """Put wheels into a folder, each checked against its hash by pip.

    Args:
        wheels: "name==version" -> sha256 of the one wheel that is accepted.
        folder: made when it is missing.
        progress: gets (bytes done, bytes in all) of the current wheel, where pip reports it (24.1 and later).

    Raises:
        HostError: no pip here, the index can't be reached, or the wheel has another hash.
    """
    if importlib.util.find_spec("pip") is None:
        raise HostError(
            f"{sys.executable} has no pip, which is needed to fetch {', '.join(wheels)}",
            hint="Install it there: python -m ensurepip, or: uv pip install pip",
        )
    folder.mkdir(parents=True, exist_ok=True)
    wanted = folder / "requirements.txt"
    wanted.write_text("".join(f"{name} --hash=sha256:{digest}\n" for name, digest in wheels.items()))
    argv = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
    argv += ["--require-hashes", "--progress-bar", _progress_bar(), "--dest", str(folder), "--requirement", str(wanted)]
    code, said = _run(argv, progress)
    if code != 0:
        raise HostError(
            f"could not fetch {', '.join(wheels)} from the package index",
            details="".join(said[-20:]).strip(),
            hint=f"Check that pip can reach its index: {sys.executable} -m pip download --no-deps {next(iter(wheels))}",
        )


def _run(argv: list[str], progress: Callable[[int, int], None]) -> tuple[int, list[str]]:
    """Exit code and lines, without those of the progress bar and the warnings about empty index locations."""
    said = []
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as pip:
        for line in pip.stdout or ():
            moved = re.match(r"Progress (\d+) of (\d+)", line)
            if moved:
                progress(int(moved[1]), int(moved[2]))
            elif not line.startswith("WARNING: Location"):
                said.append(line)
    return pip.returncode, said


def _progress_bar() -> str:
    release = tuple(int(part) for part in re.findall(r"\d+", metadata.version("pip"))[:2])
    return "raw" if release >= (24, 1) else "off"
