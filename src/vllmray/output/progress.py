"""Progress on standard error: a live list of steps on a terminal (live.py), else one plain line an event."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from vllmray.reporter import Step

LARGE = 10**9
"""Bytes: of a part that is at least this large, each quarter is reported as a line."""


def in_seconds(seconds: float) -> str:
    """As in "2 min 5 s"."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"


def outcome(kind: type[BaseException] | None) -> str:
    """How a phase ended on a host, by the exception that left it: done, failed, or stopped by Ctrl-C."""
    if kind is None:
        return "done"
    return "failed" if issubclass(kind, Exception) else "stopped"


class PlainReporter:
    """One line an event, for pipes, logs and CI.

    Args:
        prefix: before each line but those of a note.
    """

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix

    def step(self, title: str) -> Step:
        return _PlainStep(self._prefix + title)

    def note(self, text: str) -> None:
        line(text)

    def warning(self, text: str) -> None:
        line(f"{self._prefix}warning: {text}")


def line(text: str) -> None:
    """Write a line to standard error."""
    sys.stderr.write(f"{text}\n")  # in one piece: several threads write
    sys.stderr.flush()


class _PlainStep:
    def __init__(self, title: str) -> None:
        self._title = title
        self._began = time.monotonic()
        self._result = "done"
        self._said: dict[str, int] = {}

    def change(self, detail: str) -> None:
        line(f"{self._title}: {detail}")

    def glimpse(self, text: str) -> None:
        pass  # only for terminals, where the next line replaces it

    def event(self, text: str) -> None:
        line(f"{self._title}: {text}")

    def bound(self, seconds: float) -> None:
        line(f"{self._title}: waiting up to {in_seconds(seconds)}")

    def part(self, name: str, *, done: int, total: int | None, status: str) -> None:
        quarters = done * 4 // total if total else 0
        if quarters > self._said.get(name, 0) and (done == total or (total or 0) >= LARGE):
            self._said[name] = quarters
            share = "" if done == total else f" {quarters * 25} %"
            line(f"{self._title}: {name}{share} {status[:1].lower()}{status[1:]}")

    def poll(self) -> None:
        pass  # Ctrl-C reaches the command itself

    def result(self, detail: str) -> None:
        self._result = detail

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        took = in_seconds(time.monotonic() - self._began)
        said = self._result if kind is None else outcome(kind)
        line(f"{self._title}: {said} ({took})")
