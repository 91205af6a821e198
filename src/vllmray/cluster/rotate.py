"""`token rotate`: head and engine anew with another token of Ray's, which is kept as soon as the head has it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from vllmray.cluster.run import Outcome, UpOptions
from vllmray.cluster.spec import labels
from vllmray.cluster.spec.contents import Secrets
from vllmray.cluster.state import by_role, head_config, no_cluster, usable
from vllmray.cluster.up import up_head
from vllmray.config.models import ClusterConfig, Runtime
from vllmray.errors import ClusterStateError, HostError
from vllmray.hosts.base import Host
from vllmray.reporter import Reporter


def running_head(host: Host, config: ClusterConfig, runtime: Runtime) -> ClusterConfig:
    """The settings of the head and the engine that run on a host.

    Args:
        config: what no label has.

    Raises:
        ClusterStateError: there is no head, or no engine.
    """
    found = by_role(host, config.cluster)
    if labels.HEAD not in found and labels.WORKER in found:
        raise ClusterStateError(
            f"{host.address}: a worker of cluster {config.cluster} runs here, and its token is the head's",
            hint=f"On the head's host: vllmray token rotate{config.cluster_option}",
        )
    running = head_config(host, config, runtime)
    if running is None and labels.HEAD not in found:
        raise no_cluster(host, config.cluster)
    if running is None:
        raise ClusterStateError(
            f"{host.address}: the head of cluster {config.cluster} runs here without its engine; nothing was replaced",
            hint=f"`vllmray up --role head{config.place_option}` makes what is missing, with the settings that it is "
            "given.",
        )
    return running


def rotate(
    host: Host, config: ClusterConfig, options: UpOptions, reporter: Reporter, *, back: Callable[[], object]
) -> Outcome:
    """Start head and engine anew with the settings that they have, and the token in config.

    Args:
        back: called when that failed and no head has the new token: keeps the old one.

    Raises:
        HostError, ClusterStateError, UserInterruptError: as up_head does.
    """
    try:
        return up_head(host, config, replace(options, wait=False, recreate=True, whole=True), reporter)
    except BaseException:
        if not _has(host, config):
            back()
        raise


def _has(host: Host, config: ClusterConfig) -> bool:
    """Whether a head runs with that token; where the host does not say, what was kept last is the best guess."""
    try:
        head = by_role(host, config.cluster).get(labels.HEAD)
    except HostError:
        return True
    wanted = Secrets(config.ray_token).marks(labels.HEAD)["ray_token"]
    return usable(head) and head is not None and labels.carried_marks(head.labels).get("ray_token") == wanted
