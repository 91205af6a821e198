"""Every error that vllmray raises on purpose, each with its exit code. Printed in cli/main.py and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class VllmrayError(Exception):
    """Something failed that the user can act on.

    Args:
        message: one line: which host, and what.
        details: another program's own words (a log tail, a list of problems), printed below the message.
        hint: what to do next, in the imperative, with a command where one helps.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, details: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        self.hint = hint


def say_left(why: BaseException, what: str, error: BaseException) -> None:
    """Have an error say that its clean-up failed as well, and what is still there.

    Args:
        why: the error that the clean-up is about.
        what: was not taken back.
        error: why not.
    """
    words = [error.message, error.details] if isinstance(error, VllmrayError) else [type(error).__name__, str(error)]
    line = f"Not removed: {what} ({': '.join(text.splitlines()[0] for text in words if text)})."
    if isinstance(why, VllmrayError):
        why.hint = f"{why.hint or ''}\n{line}".strip()
    else:
        why.add_note(line)


class ConfigError(VllmrayError):
    """Invalid settings; `details` lists every problem, one line a field."""

    exit_code = 2


class HostError(VllmrayError):
    """A host, its daemon, an image, a GPU runtime or a container's start."""

    exit_code = 3


class InsecureHostError(HostError):
    """A host that must not be used as it is reached."""


class BrokenConnectionError(HostError):
    """A connection broke in the middle, or was refused for now; the same again may well work."""


class NoGpuRuntimeError(HostError):
    """A daemon that was asked for GPUs knows no driver that gives them."""


class HeldError(HostError):
    """Another command holds the lock that was asked for.

    Args:
        labels: what it said of itself when it took the lock; empty when that can't be told.
    """

    def __init__(self, message: str, *, labels: Mapping[str, str]) -> None:
        super().__init__(message)
        self.labels = labels


class ClusterStateError(VllmrayError):
    """The cluster is there with another configuration, is not there, or is being changed by another command."""

    exit_code = 4


class WaitTimeoutError(VllmrayError):
    """A wait reached its bound; the message says for what, how long, and what was seen last."""

    exit_code = 5


class WorkloadError(VllmrayError):
    """A Ray node or the engine ended by itself; `details` holds the end of its log."""

    exit_code = 6


class InternalError(VllmrayError):
    """An exception that is none of these, as it is reported; nothing raises it."""

    exit_code = 70


class UserInterruptError(VllmrayError):
    """Ctrl-C; the hint says what is left running and how to go on."""

    exit_code = 130
