"""`events`: the history of a cluster on a host, from its containers' logs and from the host's own events.

The programs in the containers write to their logs what happens (payload/journal.py), and a log lasts as long as its
container. The host adds what no program can report of its own end, for as long as it keeps events
(hosts/docker/events.py).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import suppress

from vllmray.cluster.observe.history import Row, Story, seen_by_host, told
from vllmray.cluster.spec import labels
from vllmray.cluster.state import by_role, no_cluster
from vllmray.errors import HostError
from vllmray.hosts.base import Container, Host
from vllmray.wait import Clock, SystemClock

LOOK_BACK_S = 3600.0
"""Rows are read from so long before the time that is asked about, so that what began then is known as the beginning."""
POLL_S = 1.0
OVERLAP_S = 1.0
"""A line is written a moment after the time that it names, which is rounded."""


def history(host: Host, cluster: str, *, since: float | None) -> list[Row]:
    """What happened, oldest first.

    Args:
        since: unix seconds; None for all that is known.

    Raises:
        ClusterStateError: nothing of that name is or was on the host, as far as is known.
    """
    return rows_since(since, Story().add(rows_of(host, cluster, early(since))))


def early(since: float | None) -> float | None:
    """From when on rows are read, for those since that time."""
    return None if since is None else max(since - LOOK_BACK_S, 0.0)


def rows_since(since: float | None, rows: list[Row]) -> list[Row]:
    """The rows from that time on."""
    return [row for row in rows if since is None or row.at >= since]


def rows_of(host: Host, cluster: str, early: float | None) -> list[Row]:
    """Rows of one host from that time on, in no order; raises as history does."""
    found = _containers(host, cluster)
    rows = _of_host(host, cluster, early)
    for container in found:
        rows += told(container.name, host.logs(container.id, since=early))
    if not found and not rows:
        raise no_cluster(host, cluster)
    return rows


def _containers(host: Host, cluster: str) -> list[Container]:
    return [container for role, container in by_role(host, cluster).items() if role != labels.PROBE]


def _of_host(host: Host, cluster: str, since: float | None) -> list[Row]:
    events = host.events(labels.selector(cluster), since=since)
    return list(seen_by_host(event for event in events if event.labels.get(labels.ROLE) != labels.PROBE))


def follow(host: Host, cluster: str, *, since: float | None, clock: Clock | None = None) -> Iterator[Row]:
    """The same, then each further row as it comes, for ever; also of containers that are started or made meanwhile.

    Raises:
        ClusterStateError: as history does; a cluster that goes away later may come back.
    """
    clock = clock or SystemClock()
    story = Story()
    rows = rows_of(host, cluster, early(since))
    yield from rows_since(since, story.add(rows))
    news = _News(host, cluster, rows, early(since))
    while True:
        yield from rows_since(since, story.add(news.look()))
        clock.sleep(POLL_S)


class _News:
    """Rows that were not returned yet.

    Args:
        had: the first rows, which were returned.
        early: unix seconds, from which those were read.
    """

    def __init__(self, host: Host, cluster: str, had: list[Row], early: float | None) -> None:
        self._host = host
        self._cluster = cluster
        self._had = {row.key for row in had}
        self._newest: dict[str, float] = {}
        """By container, the time of its newest row."""
        self._early = early
        self._seen_at = early
        self._logs: dict[str, _Log] = {}
        self._note(had)

    def look(self) -> list[Row]:
        """The rows that came since the last call, in no order."""
        here = _containers(self._host, self._cluster)
        for container in here:
            self._read_on(container)
        rows = _of_host(self._host, self._cluster, self._seen_at)
        self._seen_at = max((row.at for row in rows), default=self._seen_at)
        there = {container.id for container in here}
        read = [known for known, log in self._logs.items() if known not in there and log.ended]
        for log in self._logs.values():
            rows += log.take()
        for known in read:
            del self._logs[known]
        fresh = {row.key: row for row in rows if row.key not in self._had}
        self._note(list(fresh.values()))
        return list(fresh.values())

    def _note(self, rows: list[Row]) -> None:
        self._had |= {row.key for row in rows}
        for row in rows:
            self._newest[row.where] = max(row.at, self._newest.get(row.where, 0.0))

    def _read_on(self, container: Container) -> None:
        """Follow its log, again when it ended with the program and that was started since."""
        log = self._logs.get(container.id)
        if log is None or (log.ended and (container.status == "running" or container.started_at != log.started_at)):
            before = log.take() if log else []
            newest = max((row.at for row in before), default=self._newest.get(container.name, self._early or 0.0))
            self._logs[container.id] = _Log(self._host, container, max(newest - OVERLAP_S, 0.0), before)


class _Log:
    """A container's log, followed by a thread of its own until it ends.

    Args:
        rows: that were read before and not taken yet.
    """

    def __init__(self, host: Host, container: Container, since: float, rows: list[Row]) -> None:
        self.started_at = container.started_at
        self.ended = False
        self._rows: queue.SimpleQueue[Row] = queue.SimpleQueue()
        for row in rows:
            self._rows.put(row)
        threading.Thread(target=self._read, args=(host, container, since), daemon=True).start()

    def _read(self, host: Host, container: Container, since: float) -> None:
        try:
            with suppress(HostError):  # the container is gone, or the next look reports what is wrong with the host
                for row in told(container.name, host.logs(container.id, follow=True, since=since)):
                    self._rows.put(row)
        finally:
            self.ended = True

    def take(self) -> list[Row]:
        """The rows that came since the last call."""
        rows = []
        with suppress(queue.Empty):
            while True:
                rows.append(self._rows.get_nowait())
        return rows
