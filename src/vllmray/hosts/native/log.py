"""The log of a node: what its processes write, and its supervisor's lines of journal.py between."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from vllmray.hosts.native.processes import living
from vllmray.hosts.native.records import NodeFolder
from vllmray.payload.journal import Entry, Kind, line_of
from vllmray.wait import Clock

FOLLOW_S = 0.1


def lines_of(folder: NodeFolder, *, follow: bool, tail: int | None, clock: Clock) -> Iterator[str]:
    """Its lines, the oldest or the last `tail` first; following ends with the node's process."""
    if not folder.log.exists():
        return
    with folder.log.open(errors="replace", newline="\n") as log:
        if tail is not None:
            lines = log.readlines()
            yield from (line.rstrip("\r\n") for line in lines[max(len(lines) - tail, 0) :])
        rest = ""
        while True:
            runs = follow and folder.state().status == "running" and living(folder.state().main) is not None
            for piece in log:
                rest += piece
                if rest.endswith("\n"):
                    yield rest.rstrip("\r\n")
                    rest = ""
            if not runs:
                break
            clock.sleep(FOLLOW_S)
        if rest:
            yield rest


def write(folder: NodeFolder, kind: Kind, text: str) -> None:
    """Add a line of journal.py, on a line of its own whatever the node wrote last."""
    with folder.log.open("a+b", buffering=0) as log:
        size = log.seek(0, os.SEEK_END)
        log.seek(max(size - 1, 0))
        begun = log.read(1) not in (b"", b"\n")
        log.write(("\n" * begun + line_of(Entry(time.time(), kind, text)) + "\n").encode())
