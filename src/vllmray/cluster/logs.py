"""`logs`: the output of one of the cluster's containers."""

from __future__ import annotations

from collections.abc import Iterator

from vllmray.cluster.spec import labels
from vllmray.cluster.state import by_role, no_cluster
from vllmray.errors import ClusterStateError
from vllmray.hosts.base import Host

PREFERRED = (labels.ENGINE, labels.WORKER, labels.HEAD)


def logs(host: Host, cluster: str, role: str | None, *, follow: bool, tail: int | None) -> Iterator[str]:
    """Lines of a container's log; without a role the engine's, or on a worker's host the worker's.

    Raises:
        ClusterStateError: no such container here; it names those that are.
    """
    found = by_role(host, cluster)
    role = role or next((role for role in PREFERRED if role in found), labels.ENGINE)
    if role not in found:
        if not found:
            raise no_cluster(host, cluster)
        raise ClusterStateError(
            f"{host.address}: cluster {cluster} has no {role} container on this host, only: {', '.join(sorted(found))}",
            hint="Name another (vllmray logs head|worker|engine), or the host that has it (--host).",
        )
    return host.logs(found[role].id, follow=follow, tail=tail)
