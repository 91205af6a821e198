"""One command at a time changes a cluster's containers on a host; the next waits, and shows who holds the lock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from vllmray.cluster.spec import labels
from vllmray.errors import ClusterStateError, HeldError, WaitTimeoutError
from vllmray.hosts.base import Host, Lock
from vllmray.reporter import Reporter
from vllmray.wait import Clock, NotReady, Ready, wait_until

WAIT_S = 120.0
"""Enough for a command to stop an engine and a node that use their whole grace period (state.STOP_TIMEOUT_S)."""
POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock, as it is shown to others."""

    who: str = "somebody"
    """USER@HOST."""
    command: str = "vllmray"
    process: int = 0

    def labels(self, cluster: str) -> dict[str, str]:
        """The labels of a lock that this holder takes now."""
        return {
            labels.LOCK: cluster,
            labels.LOCK_HOLDER: f"{self.who} ({self.command}, process {self.process})",
            labels.LOCK_SINCE: datetime.now(UTC).isoformat(timespec="seconds"),
        }


NOBODY = Holder()
"""A holder of whom nothing is known."""


def lock_name(cluster: str) -> str:
    """Of the form of container names (cluster/spec/containers.py), and different from all of them."""
    return f"vllmray-{cluster}-lock"


class Turn:
    """The lock under which one command changes a cluster's containers on a host; a context manager.

    Args:
        image: one with Python that the host has.
    """

    def __init__(self, host: Host, cluster: str, *, image: str, holder: Holder, reporter: Reporter) -> None:
        self._host = host
        self._cluster = cluster
        self._image = image
        self._holder = holder
        self._reporter = reporter
        self._lock: Lock | None = None

    def begin(self, clock: Clock | None = None) -> None:
        """Take the lock, waiting for it if need be; nothing to do when it is held already.

        Raises:
            ClusterStateError: another command held it until the timeout.
        """
        if self._lock is None:
            seen = self._try()
            self._lock = self._wait(seen, clock) if isinstance(seen, HeldError) else seen

    def end(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            lock, self._lock = self._lock, None
            lock.close()

    @contextmanager
    def briefly(self) -> Iterator[None]:
        """Hold the lock for the block, without waiting; raises HeldError when another command holds it."""
        with closing(self._take()):
            yield

    def __enter__(self) -> Self:
        self.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.end()

    def _take(self) -> Lock:
        return self._host.lock(lock_name(self._cluster), self._image, self._holder.labels(self._cluster))

    def _try(self) -> Lock | HeldError:
        try:
            return self._take()
        except HeldError as held:
            return held

    def _wait(self, held: HeldError, clock: Clock | None) -> Lock:
        seen = [held]

        def probe(_left: float) -> Ready[Lock] | NotReady:
            found = self._try()
            if not isinstance(found, HeldError):
                return Ready(found)
            seen.append(found)
            return NotReady(in_words(found))

        with self._reporter.step(f"cluster {self._cluster}") as step:
            try:
                lock = wait_until(
                    probe, what="the cluster's lock", timeout=WAIT_S, step=step, poll_interval=POLL_S, clock=clock
                )
            except WaitTimeoutError as error:
                raise ClusterStateError(
                    f"{self._host.address}: cluster {self._cluster}: {in_words(seen[-1])}, and did not finish "
                    f"within {WAIT_S:.0f} s",
                    hint="Wait for that command, or stop it. If it can't be stopped, `vllmray down --force --cluster "
                    f"{self._cluster}` removes the cluster without the lock.",
                ) from error
            step.result("free")
        return lock


def in_words(held: HeldError) -> str:
    """As in "root@desk (vllmray up, process 4711) has been changing it since 10:03:12"."""
    holder = held.labels.get(labels.LOCK_HOLDER, "another command")
    try:
        since = datetime.fromisoformat(held.labels[labels.LOCK_SINCE]).astimezone()
    except (KeyError, ValueError):
        return f"{holder} is changing it"
    day = "" if since.date() == datetime.now().astimezone().date() else f"{since:%Y-%m-%d} "
    return f"{holder} has been changing it since {day}{since:%H:%M:%S}"
