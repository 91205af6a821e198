"""What happened, from the lines of journal.py and from what a host saw itself, as rows of one history; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from vllmray.cluster.observe.reasons import reason
from vllmray.hosts.host_events import HostEvent
from vllmray.payload.journal import exit_words, parse, signal_name

BAD = frozenset({"lost", "died", "stalled", "node-ended", "exited", "oom"})
"""Kinds after which something has to recover."""
ASIDE = ("joined", "lost")
"""Kinds that are about another node: what the program itself said before is still the reason of its end."""


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that happened."""

    at: float
    """Unix seconds, by the host's clock."""
    where: str
    """The container's name."""
    kind: str
    """One of journal.Kind; of what a host saw: started, exited, oom, killed, stopped, restarted, paused, unpaused."""
    text: str

    @property
    def key(self) -> tuple[float, str, str]:
        """The same for the same thing, however much of a log was read for its text."""
        return self.at, self.where, self.kind


def told(where: str, lines: Iterable[str]) -> Iterator[Row]:
    """The rows in a container's log; a death with the reason that stands between it and the row before.

    Args:
        lines: of the log, oldest first; they are read one by one and none is kept.
    """
    found = None
    for line in lines:
        entry = parse(line)
        if entry is None:
            if reason((line,)):
                found = reason((found or "", line))
            continue
        text = f"{entry.text}; {found}" if found and entry.kind == "died" else entry.text
        yield Row(entry.at, where, entry.kind, text)
        if entry.kind not in ASIDE:
            found = None


def seen_by_host(events: Iterable[HostEvent]) -> Iterator[Row]:
    """The rows of what a host saw."""
    for event in events:
        kind, text = _words(event)
        yield Row(event.at, event.container, kind, text)


def _words(event: HostEvent) -> tuple[str, str]:
    match event.action:
        case "start":
            return "started", "the container"
        case "die":
            return "exited", exit_words(event.exit_code or 0)
        case "oom":
            return "oom", "a process was OOM-killed by the kernel"
        case "kill":
            return "killed", f"signal {_signal_words(event.signal or 0)}"
        case "stop":
            return "stopped", "by a command"
        case "restart":
            return "restarted", "by a command"
        case "pause":
            return "paused", "by a command"
        case "unpause":
            return "unpaused", "by a command"


def _signal_words(number: int) -> str:
    name = signal_name(number)
    return f"{number} ({name})" if name else str(number)


class Story:
    """Rows in order, each worded with regard to those before it."""

    def __init__(self) -> None:
        self._ended: set[str] = set()
        self._bad_since: float | None = None

    def add(self, rows: Iterable[Row]) -> list[Row]:
        """The same rows by time. One that is earlier than rows of an earlier call comes after those all the same."""
        return [self._told(row) for row in sorted(rows, key=lambda row: row.at)]

    def _told(self, row: Row) -> Row:
        if row.kind == "exited":
            self._ended.add(row.where)
        if row.kind in BAD and self._bad_since is None:
            self._bad_since = row.at
        if row.kind == "started" and row.where in self._ended:
            return replace(row, kind="restarted", text="started again")
        if row.kind == "ready" and self._bad_since is not None:
            took = max(row.at - self._bad_since, 0.0)
            self._bad_since = None
            return replace(row, text=f"{row.text}; recovered after {took:.0f} s")
        return row
