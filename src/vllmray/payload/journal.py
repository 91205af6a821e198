"""Events as lines in the logs of containers, from which `vllmray events` makes the history of a cluster.

Standard library only: programs in containers write the lines, and vllmray reads them. A line is
`vllmray-event {"at": unix seconds, "kind": …, "text": …}`; kinds are those of Kind, the text is for a person.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from contextlib import suppress
from typing import Any, Literal, NamedTuple, TextIO, get_args

Kind = Literal[
    "waiting",  # node: for the head. engine: for GPUs
    "node-started",  # Ray was started in this container
    "node-ended",  # Ray exited, or did not answer and was ended
    "joined",  # a Ray node, as the engine's container sees it
    "lost",
    "starting",  # the engine loads the model
    "ready",  # it answered a completion
    "stalled",  # it generates no tokens, and is ended
    "died",  # it exited unexpectedly
    "given-up",  # a crash loop: it is not restarted
    "insecure",  # Ray or the endpoint answers without authentication: the engine is stopped
    "stopped",  # it received SIGTERM
    "exited",  # native: the node's main process exited, as its supervisor saw it
    "restarted",  # native: it was started again
]
PREFIX = "vllmray-event "


class Entry(NamedTuple):
    """One event."""

    at: float
    """Unix seconds, by the clock of the container's host."""
    kind: Kind
    text: str


def tell(kind: Kind, text: str, *, to: TextIO | None = None) -> None:
    """Write an entry to the log, and flush it."""
    stream = to or sys.stdout
    stream.write(line_of(Entry(time.time(), kind, text)) + "\n")
    stream.flush()


def line_of(entry: Entry) -> str:
    """The line of a log for an entry."""
    return PREFIX + json.dumps({"at": round(entry.at, 3), "kind": entry.kind, "text": entry.text})


def parse(line: str) -> Entry | None:
    """The entry of a line of a log; None for any other line."""
    if not line.startswith(PREFIX):
        return None
    try:
        values: dict[str, Any] = json.loads(line[len(PREFIX) :])
        entry = Entry(float(values["at"]), values["kind"], str(values["text"]))
    except (ValueError, LookupError, TypeError):
        return None
    return entry if entry.kind in get_args(Kind) else None


def exit_words(code: int) -> str:
    """An exit code in words: above 128 it stands for a signal (bash(1), EXIT STATUS), "exit code 137 (SIGKILL)"."""
    name = signal_name(code - 128)
    return f"exit code {code} ({name})" if name else f"exit code {code}"


def signal_name(number: int) -> str | None:
    """As in SIGKILL; None for a number that is no signal's."""
    with suppress(ValueError):
        return signal.Signals(number).name
    return None
