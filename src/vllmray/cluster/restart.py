"""`restart`: start a container's program again; the container keeps everything that it has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from vllmray.cluster import waits
from vllmray.cluster.lock import NOBODY, Holder, Turn
from vllmray.cluster.observe.watch import log_tail
from vllmray.cluster.spec import labels
from vllmray.cluster.spec.containers import Node
from vllmray.cluster.spec.gpus import stated_gpus
from vllmray.cluster.state import STOP_TIMEOUT_S, by_role, head_config, no_cluster, usable, worker_config
from vllmray.config.models import ClusterConfig, Runtime
from vllmray.config.resolved import ResolvedConfig
from vllmray.errors import ClusterStateError, UserInterruptError, WaitTimeoutError, WorkloadError
from vllmray.hosts.base import Container, Host
from vllmray.reporter import Reporter

TURNS = {
    labels.HEAD: (labels.HEAD, labels.ENGINE),  # the engine would notice by itself, but later
    labels.ENGINE: (labels.ENGINE,),
    labels.WORKER: (labels.WORKER,),
}
NEEDED = {**TURNS, labels.ENGINE: (labels.HEAD, labels.ENGINE)}


@dataclass(frozen=True, slots=True)
class RestartOptions:
    """How to restart."""

    runtime: Runtime
    wait: bool = True
    holder: Holder = NOBODY
    """Who holds the cluster's lock meanwhile."""


def restart(
    host: Host, config: ClusterConfig, role: str | None, options: RestartOptions, reporter: Reporter
) -> tuple[str, ...]:
    """Restart the program of one container, for a head the engine's too, and wait until it is ready again.

    Args:
        config: the cluster's name and how long to wait; every other setting is what the containers carry.
        role: by default the engine, or on a worker's host the worker.

    Returns:
        The names of the containers.

    Raises:
        ClusterStateError: there is no such container, or the engine has no running head.
        HostError, WaitTimeoutError, WorkloadError: see errors.py. Nothing is undone.
        UserInterruptError: Ctrl-C while it waited; everything keeps running.
    """
    found = by_role(host, config.cluster)
    role = role or (labels.ENGINE if {labels.HEAD, labels.ENGINE} & found.keys() else labels.WORKER)
    _check(host, config, found, role)
    settings = _settings(host, config, role, options.runtime) if options.wait else None
    names = tuple(found[each].name for each in TURNS[role])
    image = found[TURNS[role][0]].image
    with Turn(host, config.cluster, image=image, holder=options.holder, reporter=reporter):
        for each in TURNS[role]:
            with reporter.step(f"restarting {found[each].name}") as step:
                host.restart(found[each].id, timeout=STOP_TIMEOUT_S)
                step.result("started")
    if settings:
        with _explaining(host, settings, found[TURNS[role][-1]]):
            _wait(host, settings, role, reporter)
    return names


def _settings(host: Host, config: ClusterConfig, role: str, runtime: Runtime) -> ResolvedConfig:
    found = (worker_config if role == labels.WORKER else head_config)(host, config, runtime)
    if found is None:
        raise no_cluster(host, config.cluster)  # removed meanwhile
    return found


def _check(host: Host, config: ClusterConfig, found: Mapping[str, Container], role: str) -> None:
    there = sorted(found.keys() - {labels.PROBE})
    if not there:
        raise no_cluster(host, config.cluster)
    missing = [each for each in NEEDED[role] if each not in found]
    if missing:
        raise ClusterStateError(
            f"{host.address}: cluster {config.cluster} has no {missing[0]} container on this host, only: "
            f"{', '.join(there)}",
            hint=f"Name another (vllmray restart {'|'.join(there)}), or the host that has it (--host). "
            "`vllmray up` makes what is missing.",
        )
    if role == labels.ENGINE and not usable(found[labels.HEAD]):
        raise ClusterStateError(
            f"{host.address}: {found[labels.HEAD].name} is {found[labels.HEAD].status}, and the engine needs it",
            hint=f"Restart both: vllmray restart head{config.place_option}",
        )


def _wait(host: Host, config: ResolvedConfig, role: str, reporter: Reporter) -> None:
    containers = by_role(host, config.cluster)
    if role == labels.WORKER:
        node = Node(config.node_ip, config.network_interface, stated_gpus(config) or 0)
        waits.for_worker(host, config, node, containers, reporter, anew=True)
    else:
        waits.for_engine(host, config, containers, reporter, fresh=True)


@contextmanager
def _explaining(host: Host, config: ClusterConfig, container: Container) -> Iterator[None]:
    """Add the end of the log, and a hint, to what ends the wait."""
    log = f"vllmray logs {container.labels[labels.ROLE]}{config.place_option}"
    try:
        yield
    except KeyboardInterrupt:
        raise UserInterruptError(
            f"stopped waiting; {container.name} keeps running on {host.address}",
            hint=f"`vllmray status{config.place_option}` shows when it is ready.",
        ) from None
    except WaitTimeoutError as error:
        error.details = f"The end of the log of {container.name}:\n{log_tail(host, container.id)}"
        error.hint = f"It is still starting: vllmray status{config.place_option}. The whole log: {log}"
        raise
    except WorkloadError as error:
        error.hint = f"The whole log: {log}"
        raise
