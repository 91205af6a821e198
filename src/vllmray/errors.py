"""All errors that vllmray raises on purpose, each with its exit code. Printed only in cli/main.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class VllmrayError(Exception):
    """A failure that the user can act on.

    Args:
        message: one line: which host, and what.
        details: another program's output (a log tail, a list of problems), printed below the message.
        hint: what to do next, in the imperative, with a command where one helps.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, details: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        self.hint = hint


def say_left(why: BaseException, what: str, error: BaseException) -> None:
    """Add to an error that the clean-up failed as well, and what was not removed.

    Args:
        why: the original error.
        what: what was not removed.
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
    """A failure of a host, its daemon, an image, a GPU runtime or a container's start."""

    exit_code = 3


class InsecureHostError(HostError):
    """A host whose connection is insecure, such as TCP without TLS."""


class BrokenConnectionError(HostError):
    """A connection broke, or was refused for now; a retry may work."""


class NoGpuRuntimeError(HostError):
    """The Docker daemon has no GPU runtime."""


class HeldError(HostError):
    """Another command holds the requested lock.

    Args:
        labels: of the lock, which name its holder; empty if they can't be read.
    """

    def __init__(self, message: str, *, labels: Mapping[str, str]) -> None:
        super().__init__(message)
        self.labels = labels


class ClusterStateError(VllmrayError):
    """The cluster exists with another configuration, does not exist, or is being changed by another command."""

    exit_code = 4


class WaitTimeoutError(VllmrayError):
    """A wait timed out; the message has what it waited for, how long, and the last observation."""

    exit_code = 5


class WorkloadError(VllmrayError):
    """A Ray node or the engine exited; `details` holds the end of its log."""

    exit_code = 6


class InternalError(VllmrayError):
    """How an unexpected exception is reported; nothing raises it."""

    exit_code = 70


class UserInterruptError(VllmrayError):
    """Ctrl-C; the hint says what is still running and how to continue."""

    exit_code = 130
