"""`down`: everything that carries the cluster's label on a host, in the order engine, worker, head."""

from __future__ import annotations

from dataclasses import dataclass

from vllmray.cluster import labels
from vllmray.cluster.existing import STOP_TIMEOUT_S
from vllmray.hosts.base import Container, Host
from vllmray.reporter import Reporter


@dataclass(frozen=True, slots=True)
class Removed:
    """Names of what was removed; empty when there was nothing."""

    containers: tuple[str, ...]
    shared: tuple[str, ...]
    """Volumes and networks."""


def down(host: Host, cluster: str | None, reporter: Reporter) -> Removed:
    """Remove a cluster's containers, volumes and networks from a host (None: of every cluster). Model caches stay."""
    with reporter.step(f"host {host.address}") as step:
        host.ping()
        found = sorted(host.containers(labels.selector(cluster)), key=_turn)
        step.result(f"{len(found)} container{'' if len(found) == 1 else 's'}")
    for container in found:
        with reporter.step(f"stopping {container.name}") as step:
            host.stop_and_remove(container.id, timeout=STOP_TIMEOUT_S)
            step.result("removed")
    shared = host.prune(labels.selector(cluster))
    return Removed(tuple(container.name for container in found), tuple(shared))


def _turn(container: Container) -> tuple[str, int]:
    role = container.labels.get(labels.ROLE, "")
    order = labels.STOP_ORDER
    return container.labels.get(labels.CLUSTER, ""), order.index(role) if role in order else len(order)
