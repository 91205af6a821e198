"""The settings of what runs, from its labels: to start it again as it is."""

from __future__ import annotations

from pydantic import ValidationError

from vllmray.cluster import labels
from vllmray.cluster.existing import by_role
from vllmray.config.models import ClusterConfig, Runtime
from vllmray.config.values import LOGINS
from vllmray.errors import ClusterStateError
from vllmray.hosts.base import Host


def head_config(host: Host, config: ClusterConfig, runtime: Runtime) -> ClusterConfig | None:
    """The settings of the head and the engine on a host; None where there is no engine.

    Args:
        config: what no label has: the cluster's name, what is a secret, how long to wait, and the host as it was typed.

    Raises:
        ClusterStateError: another version started them, with settings that this one does not have.
    """
    return _carried(host, config, runtime, labels.ENGINE)


def worker_config(host: Host, config: ClusterConfig, runtime: Runtime) -> ClusterConfig | None:
    """The same of a worker. A model or a size is not among its settings, and is the default's here."""
    return _carried(host, config, runtime, labels.WORKER)


def _carried(host: Host, config: ClusterConfig, runtime: Runtime, role: str) -> ClusterConfig | None:
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
        return ClusterConfig.model_validate(labels.carried_config(found.labels) | kept).typed_on(config)
    except ValidationError as error:
        start = "worker --head-ip HEAD_IP" if role == labels.WORKER else labels.HEAD
        raise ClusterStateError(
            f"{host.address}: the settings that {found.name} was started with mean nothing to this version",
            hint=f"Start it with this one: vllmray up --role {start}{config.place_option} --recreate",
        ) from error
