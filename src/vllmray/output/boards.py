"""The progress of a command over several hosts where there is no terminal: a line an event, as text or as JSON."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from vllmray.output.envelope import envelope
from vllmray.output.progress import PlainReporter, in_seconds, line, outcome
from vllmray.output.results import Progress
from vllmray.reporter import Cell, SilentStep, Step

Emit = Callable[[Progress], None]


class PlainBoard(PlainReporter):
    """Lines of text, each with its host."""

    def cell(self, host: str, phase: str) -> Cell:
        return _PlainCell(host, phase)


class _PlainCell(PlainReporter):
    def __init__(self, host: str, phase: str) -> None:
        super().__init__(f"{host}: ")
        self._phase, self._began = phase, time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        took = in_seconds(time.monotonic() - self._began)
        line(f"{self._prefix}{self._phase} {outcome(kind)} ({took})")


class JsonBoard:
    """JSON, one envelope a line, on standard output."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def _emit(self, event: Progress) -> None:
        with self._lock:
            print(envelope("up --progress", event), flush=True)

    def cell(self, host: str, phase: str) -> Cell:
        return _JsonCell(host, phase, self._emit)

    def step(self, title: str) -> Step:
        return _JsonStep(title, None, None, self._emit)

    def note(self, text: str) -> None:
        self._emit(_event(None, None, "note", text))

    def warning(self, text: str) -> None:
        self._emit(_event(None, None, "warning", text))


def _event(host: str | None, phase: str | None, kind: str, text: str, seconds: float | None = None) -> Progress:
    return Progress(time.time(), host, phase, kind, text, seconds)


class _JsonCell:
    def __init__(self, host: str, phase: str, emit: Emit) -> None:
        self._host, self._phase, self._emit = host, phase, emit
        self._began = time.monotonic()

    def step(self, title: str) -> Step:
        return _JsonStep(title, self._host, self._phase, self._emit)

    def note(self, text: str) -> None:
        self._emit(_event(self._host, self._phase, "note", text))

    def warning(self, text: str) -> None:
        self._emit(_event(self._host, self._phase, "warning", text))

    def __enter__(self) -> Self:
        self._emit(_event(self._host, self._phase, "begin", ""))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        text = "" if kind is None else str(error)
        took = time.monotonic() - self._began
        self._emit(_event(self._host, self._phase, outcome(kind), text, took))


class _JsonStep(SilentStep):
    """All but glimpses, which are for terminals."""

    def __init__(self, title: str, host: str | None, phase: str | None, emit: Emit) -> None:
        self._title, self._host, self._phase, self._emit = title, host, phase, emit
        self._said: dict[str, int] = {}

    def _say(self, kind: str, text: str) -> None:
        self._emit(_event(self._host, self._phase, kind, f"{self._title}: {text}"))

    def change(self, detail: str) -> None:
        self._say("step", detail)

    def event(self, text: str) -> None:
        self._say("step", text)

    def bound(self, seconds: float) -> None:
        self._say("step", f"waiting up to {in_seconds(seconds)}")

    def part(self, name: str, *, done: int, total: int | None, status: str) -> None:
        tenths = done * 10 // total if total else 0
        if tenths > self._said.get(name, 0):
            self._said[name] = tenths
            self._say("step", f"{name} {tenths * 10} % {status}")

    def result(self, detail: str) -> None:
        self._say("result", detail)
