"""`down`: everything that carries the cluster's label on a host, in the order engine, worker, head."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from vllmray.cluster.lock import NOBODY, Holder, Turn, lock_name
from vllmray.cluster.spec import labels
from vllmray.cluster.state import STOP_TIMEOUT_S
from vllmray.errors import HostError
from vllmray.hosts.base import Container, Host
from vllmray.reporter import Reporter


@dataclass(frozen=True, slots=True)
class Removed:
    """Names of what was removed; empty when there was nothing."""

    containers: tuple[str, ...]
    shared: tuple[str, ...]
    """Volumes and networks."""


def down(host: Host, cluster: str | None, reporter: Reporter, *, holder: Holder = NOBODY) -> Removed:
    """Remove a cluster's containers, volumes and networks from a host (None: of every cluster). Model caches stay.

    Raises:
        ClusterStateError: another command is changing it, and does not end.
        HostError: something would not go; what comes after it is still there.
    """
    containers: list[str] = []
    shared: list[str] = []
    found = _clusters(host, cluster, reporter)
    for name, image in found.items():
        with _turn(host, Turn(host, name, image=image, holder=holder, reporter=reporter), reporter):
            for container in _in_order(host, name):
                _remove(host, container, reporter, timeout=STOP_TIMEOUT_S)
                containers.append(container.name)
            shared += host.prune(labels.selector(name))
    if cluster not in found:
        shared += host.prune(labels.selector(cluster))
    return Removed(tuple(containers), tuple(shared))


def force_down(host: Host, cluster: str | None, reporter: Reporter) -> Removed:
    """The same for what won't stop: no grace, no waiting for another command, and what won't go keeps nothing else.

    Raises:
        HostError: names what would not go, with the host's words; all else is gone then.
    """
    removed: list[str] = []
    shared: list[str] = []
    failures: dict[str, str] = {}
    for name in {*_clusters(host, cluster, reporter), *([cluster] if cluster else [])}:
        with _noted(failures, lock_name(name)):
            host.break_lock(lock_name(name))
    for container in _in_order(host, cluster):
        with _noted(failures, container.name):
            _remove(host, container, reporter, timeout=0)
            removed.append(container.name)
    with _noted(failures, "volumes and networks"):
        shared += host.prune(labels.selector(cluster))
    if failures:
        raise HostError(
            f"{host.address}: would not go: {', '.join(failures)}",
            details="\n".join(f"{name}: {words}" for name, words in failures.items()),
            hint="All else is gone. When what holds these is mended (where Docker itself hangs: its daemon started "
            "anew), the same command takes them away.",
        )
    return Removed(tuple(removed), tuple(shared))


def _clusters(host: Host, cluster: str | None, reporter: Reporter) -> dict[str, str]:
    """The clusters of which anything is there, each with an image of the host.

    A lock alone is something too: another command is about to start the cluster, or was ended before it got so far.
    """
    with reporter.step(f"host {host.address}") as step:
        host.ping()
        locks = host.containers({labels.LOCK: cluster or ""})
        found = host.containers(labels.selector(cluster))
        step.result(f"{len(found)} container{'' if len(found) == 1 else 's'}")
    named = [(lock.labels[labels.LOCK], lock.image) for lock in locks]
    return dict(sorted(named + [(container.labels[labels.CLUSTER], container.image) for container in found]))


@contextmanager
def _turn(host: Host, turn: Turn, reporter: Reporter) -> Iterator[None]:
    """Hold the lock if there can be one: that an image is gone, or a disk full, is no reason to leave all there."""
    try:
        turn.begin()
    except HostError as error:
        reporter.warning(f"{host.address}: going on without the lock: {error.details or error.message}")
    try:
        yield
    finally:
        turn.end()


def _in_order(host: Host, cluster: str | None) -> list[Container]:
    return sorted(host.containers(labels.selector(cluster)), key=_place)


def _place(container: Container) -> tuple[str, int]:
    role = container.labels.get(labels.ROLE, "")
    order = labels.STOP_ORDER
    return container.labels.get(labels.CLUSTER, ""), order.index(role) if role in order else len(order)


def _remove(host: Host, container: Container, reporter: Reporter, *, timeout: float) -> None:
    with reporter.step(f"stopping {container.name}") as step:
        host.stop_and_remove(container.id, timeout=timeout)
        step.result("removed")


@contextmanager
def _noted(failures: dict[str, str], what: str) -> Iterator[None]:
    """A failure is written down, and the next thing follows."""
    try:
        yield
    except HostError as error:
        failures[what] = error.details or error.message
