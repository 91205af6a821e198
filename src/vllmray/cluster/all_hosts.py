"""Commands about a cluster that exists, on all hosts of its file at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from vllmray.cluster.down import Removed, down, force_down
from vllmray.cluster.lock import Holder
from vllmray.cluster.members import Interruption, Member, Results, all_of, on_each
from vllmray.cluster.merge import Live, by_time
from vllmray.cluster.observe import events
from vllmray.cluster.observe.history import Row, Story
from vllmray.cluster.observe.status import ClusterView, look
from vllmray.cluster.phases.base import ClusterRun
from vllmray.cluster.phases.connect import connect, reach
from vllmray.cluster.restart import RestartOptions, restart
from vllmray.cluster.rotate import rotate
from vllmray.cluster.spec import labels
from vllmray.cluster.state import by_role, worker_config
from vllmray.cluster.up import up_worker
from vllmray.errors import ClusterStateError, HostError
from vllmray.hosts.base import Host
from vllmray.reporter import Board, Reporter, SilentBoard
from vllmray.secrets.store import SecretStore

Lost = Callable[[str, Exception], object]
"""Told of each host that can't be read, with its error."""
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)")
"""RFC 3339, as daemons write it before a line."""


@dataclass(frozen=True, slots=True)
class HostState:
    """A host of the cluster file, and what is there of the cluster."""

    name: str
    address: str
    role: str
    """In the file."""
    view: ClusterView | None
    """None where nothing of the cluster is, or the host can't be reached."""
    error: str | None
    """Why it can't be reached."""

    @property
    def state(self) -> str:
        """In one line."""
        if self.error:
            return self.error
        if self.view is None:
            return "no node"
        return self.view.problem or "ready"


def look_all(members: Sequence[Member], cluster: str) -> list[HostState]:
    """Each host's state now, in the order of the file; one that can't be reached is told as such."""

    def act(member: Member, _: Reporter) -> ClusterView | None:
        try:
            return look(reach(member), cluster)
        except ClusterStateError:
            return None

    results = on_each(members, "status", act, SilentBoard(), Interruption())
    return [_state(member, results) for member in members]


def _state(member: Member, results: Results[ClusterView | None]) -> HostState:
    error = results.failures.get(member.name)
    if error is not None and not isinstance(error, HostError):
        raise error
    view = results.values.get(member.name)
    return HostState(
        member.name, member.address, member.role, view, str(error).splitlines()[0] if error is not None else None
    )


def down_all(
    members: Sequence[Member], cluster: str, board: Board, *, holder: Holder, force: bool = False
) -> dict[str, Removed]:
    """Remove the cluster from every host; what each had, by host.

    Raises:
        VllmrayError: not everything was removed; on the other hosts it was.
    """

    def act(member: Member, reporter: Reporter) -> Removed:
        host = reach(member)
        return force_down(host, cluster, reporter) if force else down(host, cluster, reporter, holder=holder)

    return all_of(members, "down", act, board, Interruption())


def restart_all(
    members: Sequence[Member], role: str | None, board: Board, *, wait: bool, holder: Holder
) -> dict[str, tuple[str, ...]]:
    """Restart the engine, the head with the engine, or all workers; names of the containers, by host.

    Raises:
        VllmrayError: as restart does.
    """
    on = labels.WORKER if role == labels.WORKER else labels.HEAD
    chosen = [member for member in members if member.role == on]

    def act(member: Member, reporter: Reporter) -> tuple[str, ...]:
        options = RestartOptions(member.config.runtime or "docker", wait=wait, holder=holder)
        return restart(reach(member), member.config, role or labels.ENGINE, options, reporter)

    return all_of(chosen, "restart", act, board, Interruption())


def history_all(members: Sequence[Member], cluster: str, *, since: float | None, lost: Lost) -> list[Row]:
    """One history of all hosts, oldest first; arguments as for events.history.

    Raises:
        ClusterStateError: no host has or had anything of the cluster.
    """
    early = events.early(since)

    def act(member: Member, _: Reporter) -> list[Row]:
        try:
            return events.rows_of(reach(member), cluster, early)
        except ClusterStateError:
            return []

    results = on_each(members, "events", act, SilentBoard(), Interruption())
    for name, error in results.failures.items():
        lost(name, error)
    rows = [_on(name, row) for name, found in results.values.items() for row in found]
    if not rows and not results.failures:
        raise no_cluster_anywhere(members, cluster)
    return events.rows_since(since, Story().add(rows))


def no_cluster_anywhere(members: Sequence[Member], cluster: str) -> ClusterStateError:
    """The error of a command about a cluster that none of its hosts has."""
    return ClusterStateError(
        f"no cluster {cluster} on {', '.join(member.name for member in members)}",
        hint="`vllmray up` starts it.",
    )


def follow_all(members: Sequence[Member], cluster: str, *, since: float | None, lost: Lost) -> Iterator[Row]:
    """The same, then each further row as it comes, until every host is lost."""
    reached = _reached(members, lost)

    def rows(member: Member, host: Host) -> Iterator[Row]:
        return (_on(member.name, row) for row in events.follow(host, cluster, since=since))

    streams = {member.name: rows(member, host) for member, host in reached}
    return Live(lost).merged(streams, lambda row: row.at)


def _on(name: str, row: Row) -> Row:
    return replace(row, where=f"{name} {row.where}")


def _reached(members: Sequence[Member], lost: Lost) -> list[tuple[Member, Host]]:
    results = on_each(members, "connect", lambda member, _: reach(member), SilentBoard(), Interruption())
    for name, error in results.failures.items():
        lost(name, error)
    return [(member, results.values[member.name]) for member in members if member.name in results.values]


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a log."""

    at: float
    """Unix seconds by the host's clock; that of the line before where the host knows none."""
    host: str
    role: str
    text: str


def logs_all(
    members: Sequence[Member], cluster: str, role: str | None, *, follow: bool, tail: int | None, lost: Lost
) -> Iterator[Line]:
    """The logs of all containers, or of those of a role, on all hosts, by time.

    Raises:
        ClusterStateError: there is no such container.
    """
    streams: dict[str, Iterable[Line]] = {}
    reached = _reached(members, lost)
    for member, host in reached:
        for each, container in by_role(host, cluster).items():
            if each != labels.PROBE and role in (None, each):
                lines = host.logs(container.id, follow=follow, tail=tail, stamped=True)
                streams[f"{member.name} {each}"] = _lines(member.name, each, lines)
    if not streams and reached:
        raise no_cluster_anywhere(members, cluster)
    if follow:
        return Live(lost).merged(streams, lambda line: line.at)
    return by_time(streams.values(), lambda line: line.at)


def _lines(host: str, role: str, lines: Iterator[str]) -> Iterator[Line]:
    at = 0.0
    for line in lines:
        stamp, _, text = line.partition(" ")
        if STAMP.fullmatch(stamp):
            at = datetime.fromisoformat(stamp).timestamp()
        yield Line(at, host, role, text if STAMP.fullmatch(stamp) else line)


def rotate_all(up: ClusterRun, store: SecretStore) -> None:
    """Restart the head and the engine with a new token, then every worker with it, with the settings that they have.

    Raises:
        VllmrayError: as rotate does for the head; a worker that could not be restarted keeps trying with the old token,
            and `up` gives it the new one.
    """
    up.each("connect", connect)

    def replace_token(member: Member, reporter: Reporter) -> None:
        runtime = member.config.runtime or "docker"
        member.outcome = rotate(member.host, member.config, runtime, up.options, reporter, store)

    up.each("token", replace_token, [up.head])
    token = up.head.outcome.config.ray_token if up.head.outcome else None

    def join_again(member: Member, reporter: Reporter) -> None:
        running = worker_config(member.host, member.config, member.config.runtime or "docker")
        if running is not None:
            changed = running.model_copy(update={"ray_token": token})
            up_worker(member.host, changed, up.options_for(member), reporter)

    if up.workers:
        up.each("worker", join_again, up.workers)
