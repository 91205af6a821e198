"""What exists already and with which settings, compared with what is wanted: keep, replace, or refuse."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import ValidationError

from vllmray.cluster.spec import labels
from vllmray.cluster.spec.contents import Secrets
from vllmray.config.models import ClusterConfig, Runtime
from vllmray.config.resolved import ResolvedConfig
from vllmray.config.values import LOGINS
from vllmray.errors import ClusterStateError
from vllmray.hosts.base import Container, Host
from vllmray.version import __version__

# Room for Ray's drain (ray/argv.py, DRAIN_TIMEOUT_S; 30 s where a user sets Ray's default back) and for its processes'
# end after it. Docker's own default of 10 s cuts the drain short.
STOP_TIMEOUT_S = 45.0


def by_role(host: Host, cluster: str) -> dict[str, Container]:
    """The cluster's containers on a host, by role."""
    return {found.labels[labels.ROLE]: found for found in host.containers(labels.selector(cluster))}


def no_cluster(host: Host, cluster: str) -> ClusterStateError:
    """The error of a command about a cluster that is not on the host; it names those that are."""
    others = {container.labels[labels.CLUSTER] for container in host.containers(labels.selector(None))}
    return ClusterStateError(
        f"{host.address}: no cluster {cluster} here",
        hint=f"There is {', '.join(sorted(others))}: name it with --cluster."
        if others
        else "Start it with `vllmray up`, or name the host, the runtime or the cluster (--host, --runtime, --cluster).",
    )


def changes(found: Mapping[str, Container], config: ClusterConfig, secrets: Secrets, role: str) -> list[str]:
    """A line for each difference of the container of that role, if there is one, from what is wanted."""
    return labels.changed_fields(found[role].labels, config, role, secrets.marks(role)) if role in found else []


def why_stale(found: Mapping[str, Container], config: ClusterConfig, secrets: Secrets, role: str) -> list[str]:
    """Why the container of that role can't stay as it is; empty when it can, or when there is none."""
    if role in found and not usable(found[role]):
        return [f"it is {found[role].status}"]
    return changes(found, config, secrets, role)


def refuse_changes(
    host: Host, found: Mapping[str, Container], config: ClusterConfig, secrets: Secrets, roles: Iterable[str]
) -> None:
    """Raises ClusterStateError that lists every setting in which what runs differs from what is wanted."""
    lines: dict[str, None] = {}
    for role in roles:
        lines.update(dict.fromkeys(changes(found, config, secrets, role)))
    if lines:
        raise ClusterStateError(
            f"{host.address}: cluster {config.cluster} already exists with another configuration",
            details="\n".join(lines),
            hint="Add --recreate to stop it and start it with these settings, or give the settings it has.",
        )


def usable(container: Container | None) -> bool:
    """Whether a container can be left as it is."""
    return container is not None and container.status in ("running", "paused")


def remove(host: Host, found: dict[str, Container], *roles: str) -> None:
    """Stop and remove those of the roles that are there, in the order that a cluster is taken down.

    When one can't be removed, what remains is still in found.
    """
    for role in labels.STOP_ORDER:
        if role in roles and role in found:
            host.stop_and_remove(found[role].id, timeout=STOP_TIMEOUT_S)
            del found[role]


def head_config(host: Host, config: ClusterConfig, runtime: Runtime) -> ResolvedConfig | None:
    """The settings of the head and the engine on a host; None where there is no engine.

    Args:
        config: what no label has: the cluster's name, what is a secret, how long to wait, and the host as it was typed.

    Raises:
        ClusterStateError: another version started them, with settings that this one does not have.
    """
    return _carried(host, config, runtime, labels.ENGINE)


def worker_config(host: Host, config: ClusterConfig, runtime: Runtime) -> ResolvedConfig | None:
    """As head_config, for a worker. Its settings have no model and no sizes: those are the defaults here."""
    return _carried(host, config, runtime, labels.WORKER)


def _carried(host: Host, config: ClusterConfig, runtime: Runtime, role: str) -> ResolvedConfig | None:
    found = by_role(host, config.cluster).get(role)
    if found is None:
        return None
    kept = {
        "runtime": runtime,
        **{name: getattr(config, name) for name in LOGINS},
        "join_timeout": config.join_timeout,
        "engine_timeout": config.engine_timeout,
        "insecure_docker_tcp": config.insecure_docker_tcp,
    }
    try:
        return ResolvedConfig.model_validate(labels.carried_config(found.labels) | kept).typed_on(config)
    except ValidationError as error:
        start = "worker --head-ip HEAD_IP" if role == labels.WORKER else labels.HEAD
        by = found.labels.get(labels.VERSION, "of an unknown version")
        raise ClusterStateError(
            f"{host.address}: {found.name} was started by vllmray {by}, with settings that {__version__} does not have",
            hint=f"Start it with this one: vllmray up --role {start}{config.place_option} --recreate",
        ) from error
