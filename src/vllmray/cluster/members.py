"""The hosts of a cluster file during one command, and how the command acts on all of them at once."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

from vllmray.cluster.probe.facts import HostFacts
from vllmray.cluster.run import Outcome
from vllmray.config.models import ClusterConfig, Role
from vllmray.errors import HostError, UserInterruptError, VllmrayError
from vllmray.hosts.base import Host
from vllmray.hosts.facts import HostInfo
from vllmray.reporter import Board, PassedOn, Reporter, Step

T = TypeVar("T")

AT_ONCE = 64
"""Hosts that are worked on at the same time."""
POLL_S = 0.2
STOP_S = 20.0
"""How long an interrupted command waits for what its threads are doing: one request to a daemon."""


class Thread:
    """A thread that lasts as long as the command, and does one thing after the other.

    The ssh of a connection ends with the thread that started it (hosts/ssh.py; PR_SET_PDEATHSIG counts threads, man 2
    prctl), so all that is done with a host is done by one. It is a daemon: an answer that never comes must not keep the
    command from ending.
    """

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def do(self, task: Callable[[], object]) -> None:
        """Do it after all that was given before; it handles its own exceptions."""
        if not self._thread.ident:
            self._thread.start()
        self._tasks.put(task)

    def _run(self) -> None:
        while True:
            self._tasks.get()()


@dataclass(slots=True)
class Member:
    """One host of the cluster file, and what a command has learned of it."""

    name: str
    """As the file's address names it: gpu1."""
    address: str
    """As Docker takes it: ssh://gpu1."""
    role: Role
    config: ClusterConfig
    """The settings of its node."""
    connect: Callable[[], Host]
    """Opens a connection to it."""
    caller: str | None = None
    """UID:GID to run containers as where the image names no user but root."""
    connected: Host | None = None
    info: HostInfo | None = None
    facts: HostFacts | None = None
    outcome: Outcome | None = None
    """Of this command's `up` there."""
    thread: Thread = field(default_factory=Thread, repr=False)

    @property
    def host(self) -> Host:
        """The open connection."""
        if self.connected is None:
            raise HostError(f"{self.name}: not connected")
        return self.connected


@dataclass(slots=True)
class Interruption:
    """Whether Ctrl-C was pressed; threads learn it from their reporters."""

    event: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Raises KeyboardInterrupt when it was."""
        if self.event.is_set():
            raise KeyboardInterrupt


@dataclass(frozen=True, slots=True)
class Results(Generic[T]):
    """What came of an action on each host, by the host's name, in the order of the hosts."""

    values: Mapping[str, T]
    failures: Mapping[str, Exception]


def on_each(
    members: Sequence[Member], phase: str, act: Callable[[Member, Reporter], T], board: Board, stop: Interruption
) -> Results[T]:
    """Act on every host at once, each with its own cell of the board; a failure on one does not stop the others.

    Raises:
        UserInterruptError: Ctrl-C; what the threads were doing has ended, or was given up after STOP_S.
    """
    ends = _Ends[T]({member.name for member in members})
    room = threading.BoundedSemaphore(AT_ONCE)

    def run(member: Member) -> None:
        with room:
            try:
                with board.cell(member.name, phase) as cell:
                    ends.put(member.name, act(member, _Stoppable(cell, stop)), None)
            except BaseException as error:  # noqa: BLE001  # the command raises it, in its own thread
                ends.put(member.name, None, error)

    for member in members:
        member.thread.do(partial(run, member))
    try:
        ends.wait(None)
    except KeyboardInterrupt:
        stop.event.set()
        with suppress(KeyboardInterrupt):  # pressed once more: do not wait
            ends.wait(STOP_S)
        raise ends.interrupted() from None
    fatal = [error for error in ends.errors.values() if not isinstance(error, Exception)]
    if fatal:
        raise fatal[0]
    order = [member.name for member in members]
    failures = {name: error for name in order if isinstance(error := ends.errors.get(name), Exception)}
    return Results({name: ends.values[name] for name in order if name in ends.values}, failures)


def all_of(
    members: Sequence[Member], phase: str, act: Callable[[Member, Reporter], T], board: Board, stop: Interruption
) -> dict[str, T]:
    """As on_each, where every host must succeed; what each gave.

    Raises:
        Exception: at least one failed, after all have ended: failure_of them.
    """
    results = on_each(members, phase, act, board, stop)
    if results.failures:
        raise failure_of(phase, results.failures, len(members))
    return dict(results.values)


class _Ends(Generic[T]):
    """How each thread ended, by its host's name."""

    def __init__(self, names: set[str]) -> None:
        self._left = names
        self._queue: queue.SimpleQueue[tuple[str, T | None, BaseException | None]] = queue.SimpleQueue()
        self.values: dict[str, T] = {}
        self.errors: dict[str, BaseException] = {}

    def put(self, name: str, value: T | None, error: BaseException | None) -> None:
        self._queue.put((name, value, error))

    def wait(self, seconds: float | None) -> None:
        """Until all have ended, or for that long."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while self._left and (deadline is None or time.monotonic() < deadline):
            try:
                name, value, error = self._queue.get(timeout=POLL_S)
            except queue.Empty:
                continue
            self._left.discard(name)
            if error is None:
                self.values[name] = value  # type: ignore[assignment]  # without an error it is there
            else:
                self.errors[name] = error

    def interrupted(self) -> UserInterruptError:
        """What each thread said that it left."""
        told = {name: error for name, error in self.errors.items() if isinstance(error, UserInterruptError)}
        lines = [f"{name}: {error.message}" for name, error in told.items()]
        lines += [f"{name}: its last request was not answered yet" for name in sorted(self._left)]
        return UserInterruptError("interrupted", details="\n".join(lines) or None)


def failure_of(phase: str, failures: Mapping[str, Exception], hosts: int) -> Exception:
    """One error for all hosts that failed in a phase; a single one's own is kept as it is.

    Args:
        hosts: how many took part.
    """
    errors = list(failures.values())
    strange = [error for error in errors if not isinstance(error, VllmrayError)]
    if strange or len(errors) == 1:
        return (strange or errors)[0]
    told = {name: error for name, error in failures.items() if isinstance(error, VllmrayError)}
    first = next(iter(told.values()))
    kind = HostError if isinstance(first, HostError) else type(first)  # some of its kinds say more than others have
    lines = [f"{name}: {error.message}" + _indented(error.details) for name, error in told.items()]
    hints = dict.fromkeys(error.hint for error in told.values() if error.hint)
    return kind(
        f"{phase}: failed on {len(told)} of {hosts} hosts: {', '.join(told)}",
        details="\n".join(lines),
        hint="\n".join(hints) or None,
    )


def _indented(details: str | None) -> str:
    return "".join(f"\n    {line}" for line in details.splitlines()) if details else ""


class _Stoppable:
    """A reporter in whose steps an interruption shows."""

    def __init__(self, inner: Reporter, stop: Interruption) -> None:
        self._inner, self._stop = inner, stop

    def step(self, title: str) -> Step:
        self._stop.check()
        return _StoppableStep(self._inner.step(title), self._stop)

    def note(self, text: str) -> None:
        self._inner.note(text)

    def warning(self, text: str) -> None:
        self._inner.warning(text)


class _StoppableStep(PassedOn):
    def __init__(self, inner: Step, stop: Interruption) -> None:
        super().__init__(inner)
        self._stop = stop

    def change(self, detail: str) -> None:
        self._stop.check()
        super().change(detail)

    def glimpse(self, text: str) -> None:
        self._stop.check()
        super().glimpse(text)

    def part(self, name: str, *, done: int, total: int | None, status: str) -> None:
        self._stop.check()
        super().part(name, done=done, total=total, status=status)

    def poll(self) -> None:
        self._stop.check()
        super().poll()
