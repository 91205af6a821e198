"""`token rotate`: recreate head and engine with another Ray token, which is stored as soon as the head has it."""

from __future__ import annotations

from dataclasses import replace

from pydantic import SecretStr

from vllmray.cluster.run import Outcome, UpOptions
from vllmray.cluster.spec import labels
from vllmray.cluster.spec.contents import Secrets
from vllmray.cluster.state import by_role, head_config, no_cluster, usable
from vllmray.cluster.up import up_head
from vllmray.config.models import ClusterConfig, Runtime
from vllmray.errors import ClusterStateError, HostError
from vllmray.hosts.base import Host
from vllmray.reporter import Reporter
from vllmray.secrets.resolve import of_head, stored
from vllmray.secrets.store import API_KEY, RAY_TOKEN, SecretStore, new


def rotate(  # what it works on
    host: Host, config: ClusterConfig, runtime: Runtime, options: UpOptions, reporter: Reporter, store: SecretStore
) -> Outcome:
    """Restart head and engine with the settings that they have, and a new token.

    Args:
        config: the settings that no label carries.
        store: where the cluster's secrets are; the new token is stored as soon as the head has it.

    Raises:
        ClusterStateError: there is no head, no engine, or no secret of theirs in the store.
        HostError, UserInterruptError: as up_head does; the old token is stored again when no head has the new one.
    """
    running = _running_head(host, config, runtime)
    before = stored(store, RAY_TOKEN, "token")
    if not running.no_api_key:  # else a new one would be generated, and the restarted engine would get it
        stored(store, API_KEY, "key")
    changed = running.model_copy(update={"ray_token": SecretStr(new(RAY_TOKEN)), "token_file": None})
    try:
        settings = of_head(changed, store)
        return up_head(host, settings, replace(options, wait=False, recreate=True, whole=True), reporter)
    except BaseException:
        if not _has(host, changed):
            store.keep(RAY_TOKEN, before)
        raise


def _running_head(host: Host, config: ClusterConfig, runtime: Runtime) -> ClusterConfig:
    """The settings of the head and the engine that run on a host."""
    found = by_role(host, config.cluster)
    if labels.HEAD not in found and labels.WORKER in found:
        raise ClusterStateError(
            f"{host.address}: only a worker of cluster {config.cluster} runs here; rotate the token on the head's host",
            hint=f"On the head's host: vllmray token rotate{config.cluster_option}",
        )
    running = head_config(host, config, runtime)
    if running is None and labels.HEAD not in found:
        raise no_cluster(host, config.cluster)
    if running is None:
        raise ClusterStateError(
            f"{host.address}: the head of cluster {config.cluster} runs here without its engine; nothing was replaced",
            hint=f"`vllmray up --role head{config.place_option}` starts what is missing, with the settings that it is "
            "given.",
        )
    return running


def _has(host: Host, config: ClusterConfig) -> bool:
    """Whether a head runs with the token in config; assumed where the host does not answer."""
    try:
        head = by_role(host, config.cluster).get(labels.HEAD)
    except HostError:
        return True
    wanted = Secrets(config.ray_token).marks(labels.HEAD)["ray_token"]
    return usable(head) and head is not None and labels.carried_marks(head.labels).get("ray_token") == wanted
