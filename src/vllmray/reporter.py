"""How a use case reports progress. output/ renders it."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self


class Step(Protocol):
    """A running step; as a context manager it succeeds, or fails if an exception leaves the block."""

    def change(self, detail: str) -> None:
        """The current observation, as text; shown again only when it changes."""

    def glimpse(self, text: str) -> None:
        """The last line of the log of what is waited for; replaced by the next."""

    def event(self, text: str) -> None:
        """An event within the step that stays visible: "10.0.0.2 joined"."""

    def bound(self, seconds: float) -> None:
        """The timeout of the step, in seconds."""

    def part(self, name: str, *, done: int, total: int | None, status: str) -> None:
        """Progress of a named part (a layer of an image): done and total in bytes."""

    def poll(self) -> None:
        """Called at each poll of a wait; raises KeyboardInterrupt when the command was interrupted meanwhile."""

    def result(self, detail: str) -> None:
        """The text of the finished step."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class SilentStep:
    """A step that reports nothing."""

    def change(self, detail: str) -> None: ...

    def glimpse(self, text: str) -> None: ...

    def event(self, text: str) -> None: ...

    def bound(self, seconds: float) -> None: ...

    def part(self, name: str, *, done: int, total: int | None, status: str) -> None: ...

    def poll(self) -> None: ...

    def result(self, detail: str) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class PassedOn:
    """A step that passes everything on to another; subclasses add to some of it."""

    def __init__(self, inner: Step) -> None:
        self._inner = inner

    def change(self, detail: str) -> None:
        self._inner.change(detail)

    def glimpse(self, text: str) -> None:
        self._inner.glimpse(text)

    def event(self, text: str) -> None:
        self._inner.event(text)

    def bound(self, seconds: float) -> None:
        self._inner.bound(seconds)

    def part(self, name: str, *, done: int, total: int | None, status: str) -> None:
        self._inner.part(name, done=done, total=total, status=status)

    def poll(self) -> None:
        self._inner.poll()

    def result(self, detail: str) -> None:
        self._inner.result(detail)

    def __enter__(self) -> Self:
        self._inner.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._inner.__exit__(kind, error, trace)


class SilentBoard:
    """A board, and a cell, that report nothing."""

    def cell(self, host: str, phase: str) -> Cell:  # noqa: ARG002  # the protocol's
        return self

    def step(self, title: str) -> Step:  # noqa: ARG002  # the protocol's
        return SilentStep()

    def note(self, text: str) -> None: ...

    def warning(self, text: str) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class Reporter(Protocol):
    """Receives a use case's progress."""

    def step(self, title: str) -> Step:
        """Begin a step."""

    def note(self, text: str) -> None:
        """Text for the user that stays on the screen."""

    def warning(self, text: str) -> None:
        """A warning, in one line."""


class Cell(Reporter, Protocol):
    """One host in one phase, as a context manager: it is done, or failed if an exception leaves the block."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class Board(Reporter, Protocol):
    """The progress of a command over several hosts: a table of hosts and phases."""

    def cell(self, host: str, phase: str) -> Cell:
        """A host begins a phase. Safe to call from several threads, as its cells are."""
