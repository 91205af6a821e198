"""A wall clock that a test can set, for all processes of containers; this machine's own clock stays as it is.

A library of a hundred lines (wallclock.c) is loaded into every process and adds an offset, which lies in a file that
all have mapped. Only the wall clock moves: monotonic clocks are true, and so are waits. Debian's libfaketime, which was
tried first, breaks Python's sleep and Ray's start.
"""

from __future__ import annotations

import struct
from pathlib import Path

from tests.rig.hosts import run

SOURCE = Path(__file__).with_suffix(".c")
PLACE = "/wallclock"
"""Where the folder is mounted in containers."""
VARIABLES = {"LD_PRELOAD": f"{PLACE}/wallclock.so", "WALLCLOCK_FILE": f"{PLACE}/wall"}


def make(folder: Path) -> Path:
    """The folder, with the library and an offset of 0; takes a C compiler."""
    folder.mkdir()
    run("cc", "-O2", "-shared", "-fPIC", "-o", str(folder / "wallclock.so"), str(SOURCE))
    (folder / "wall").write_bytes(struct.pack("<q", 0))
    return folder


def jump(folder: Path, seconds: int) -> None:
    """Set the clock that far ahead of the true one; written in place, since other processes have the file mapped."""
    with (folder / "wall").open("r+b") as offset:
        offset.write(struct.pack("<q", seconds))
