"""What a use case tells of its progress. Rendering it is output/'s business."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self


class Step(Protocol):
    """One step under way; used as a context manager it ends well, or badly when an error passes through it."""

    def change(self, detail: str) -> None:
        """What the step sees now, in words; told again only when it differs."""

    def glimpse(self, text: str) -> None:
        """The last line of the log of what is waited for; worth a look now, and gone with the next."""

    def event(self, text: str) -> None:
        """Something happened within the step that stays worth seeing: "10.0.0.2 joined"."""

    def bound(self, seconds: float) -> None:
        """The step waits, and for at most this long."""

    def part(self, name: str, *, done: int, total: int | None, status: str) -> None:
        """A named part moved on (a layer of an image): done and total in bytes."""

    def result(self, detail: str) -> None:
        """What the finished step shows."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class SilentStep:
    """A step of which nobody is told."""

    def change(self, detail: str) -> None: ...

    def glimpse(self, text: str) -> None: ...

    def event(self, text: str) -> None: ...

    def bound(self, seconds: float) -> None: ...

    def part(self, name: str, *, done: int, total: int | None, status: str) -> None: ...

    def result(self, detail: str) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class Reporter(Protocol):
    """Where a use case's progress goes."""

    def step(self, title: str) -> Step:
        """Begin a step."""

    def note(self, text: str) -> None:
        """Lines for the user that stay on the screen, at once."""

    def warning(self, text: str) -> None:
        """One line about something that may surprise."""
