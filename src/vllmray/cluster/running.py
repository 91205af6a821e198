"""The settings of what runs, from its labels: to start it again as it is."""

from __future__ import annotations

from pydantic import ValidationError

from vllmray.cluster import labels
from vllmray.cluster.existing import by_role
from vllmray.config.models import ClusterConfig, Runtime
from vllmray.errors import ClusterStateError
from vllmray.hosts.base import Host


def head_config(host: Host, config: ClusterConfig, runtime: Runtime) -> ClusterConfig | None:
    """The settings of the head and the engine on a host; None where there is no engine.

    Args:
        config: what no label has: the cluster's name, and what is a secret.

    Raises:
        ClusterStateError: another version started them, with settings that this one does not have.
    """
    engine = by_role(host, config.cluster).get(labels.ENGINE)
    if engine is None:
        return None
    kept = {"runtime": runtime, "hf_token": config.hf_token}
    try:
        return ClusterConfig.model_validate(labels.carried_config(engine.labels) | kept)
    except ValidationError as error:
        raise ClusterStateError(
            f"{host.address}: the settings that {engine.name} was started with mean nothing to this version",
            hint="Start it with this one: vllmray up --role head --recreate",
        ) from error
