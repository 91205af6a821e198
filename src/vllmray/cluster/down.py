"""`down`: remove everything that carries the cluster's label on a host, in the order engine, worker, head."""

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
        HostError: something could not be removed; what comes after it in the order is still there.
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
    """As down, by force: no grace period, no waiting for another command, and one failure does not stop the rest.

    Raises:
        HostError: names what could not be removed, with the host's errors; everything else is removed.
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
            f"{host.address}: could not remove {', '.join(failures)}",
            details="\n".join(f"{name}: {words}" for name, words in failures.items()),
            hint="Everything else is removed. Fix what holds these (if Docker itself hangs, restart its daemon), then "
            "run the same command again.",
        )
    return Removed(tuple(removed), tuple(shared))


def _clusters(host: Host, cluster: str | None, reporter: Reporter) -> dict[str, str]:
    """The clusters that have anything on the host, each with an image that is there.

    A lock alone counts: another command is about to start the cluster, or was killed before it did.
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
    """Hold the lock where possible: a missing image or a full disk must not keep `down` from removing the rest."""
    try:
        turn.begin()
    except HostError as error:
        reporter.warning(f"{host.address}: continuing without the lock: {error.details or error.message}")
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
    """Record a failure and continue."""
    try:
        yield
    except HostError as error:
        failures[what] = error.details or error.message
