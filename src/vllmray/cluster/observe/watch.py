"""Watching a cluster through watch.py in one of its nodes, and noticing containers that end by themselves."""

from __future__ import annotations

import json
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from vllmray.cluster.spec import labels
from vllmray.cluster.spec.containers import ENGINE_STATE
from vllmray.cluster.spec.contents import WATCH
from vllmray.errors import HostError, WorkloadError
from vllmray.hosts.base import Container, Exec, Host
from vllmray.payload.protocol import RayStatus
from vllmray.ray.status import parse_line
from vllmray.wait import Clock, SystemClock

LOG_TAIL = 40


def watch_argv(
    address: str, *, gate: dict[str, object] | None = None, engine: bool = False, once: bool = False
) -> tuple[str, ...]:
    """The command line of watch.py for a GCS at HOST:PORT."""
    argv = ["python3", WATCH, f"--address={address}", "--local-node"]
    if gate:
        argv.append(f"--gate={json.dumps(gate, separators=(',', ':'))}")
    if engine:
        argv.append(f"--engine-state={ENGINE_STATE}")
    argv.append("--once" if once else "--stdin")
    return tuple(argv)


class Watch:
    """The newest observation of watch.py, which runs in a container for as long as this is open."""

    def __init__(self, host: Host, container: str, argv: tuple[str, ...], clock: Clock | None = None) -> None:
        self._host = host
        self._clock = clock or SystemClock()
        self._container = container
        self._argv = argv
        self._exec: Exec | None = None
        self._last_words = ""

    def latest(self, timeout: float) -> RayStatus | None:
        """What is seen now, waiting up to timeout seconds for news; None when there is none.

        Lines that are not observations, such as warnings of Python and Ray, are skipped.
        """
        newest = None
        deadline = self._clock.monotonic() + timeout
        try:
            self._exec = self._exec or self._host.exec(self._container, self._argv)
            while (line := self._exec.read_line(self._left(newest, deadline))) is not None:
                self._last_words = line
                newest = parse_line(line) or newest
                if self._clock.monotonic() > deadline:
                    break
        except EOFError:
            self._exec = None  # the program ended, as it does with its container; the next call starts another
            newest = newest or RayStatus(error=f"the watch in the container ended: {self._last_words}")
        except HostError as error:
            newest = RayStatus(error=error.details or error.message)
        return newest

    def _left(self, newest: RayStatus | None, deadline: float) -> float:
        """Seconds to wait for a line: none, when there is something to tell already."""
        return 0.0 if newest else max(deadline - self._clock.monotonic(), 0.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if self._exec:
            self._exec.close()


class ExitCheck:
    """Raises when one of the containers ended by itself since this was made."""

    def __init__(self, host: Host, containers: Iterable[Container]) -> None:
        self._host = host
        self._before = {container.id: container for container in containers}

    def check(self) -> None:
        """Raises WorkloadError with the end of the log of the first container that ended."""
        cluster = next(iter(self._before.values())).labels[labels.CLUSTER]
        now = {container.id: container for container in self._host.containers(labels.selector(cluster))}
        for before in self._before.values():
            after = now.get(before.id)
            if after is None:
                raise WorkloadError(f"{self._host.address}: {before.name} was removed by someone else meanwhile")
            if after.ended or after.restarts > before.restarts:
                raise self._ended(after)

    def _ended(self, container: Container) -> WorkloadError:
        return WorkloadError(
            f"{self._host.address}: {container.name} ended by itself (exit code {container.exit_code})",
            details=log_tail(self._host, container.id),
            hint="The whole log, if it is kept (--retain): vllmray logs "
            f"{container.labels[labels.ROLE]} --cluster {container.labels[labels.CLUSTER]}",
        )


def log_tail(host: Host, container: str, lines: int = LOG_TAIL) -> str:
    """The end of a container's log, or why it can't be had."""
    try:
        return "\n".join(host.logs(container, tail=lines)) or "(its log is empty)"
    except HostError as error:
        return f"(no log: {error.message})"
