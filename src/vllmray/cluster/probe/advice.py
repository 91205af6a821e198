"""Notes and warnings about a host after its probe: unified memory, swap, RDMA devices."""

from __future__ import annotations

from vllmray.cluster.probe.host import gives_rdma, hcas_of
from vllmray.cluster.spec import labels, unified
from vllmray.config.models import ClusterConfig
from vllmray.hosts.base import Container, Host
from vllmray.payload.protocol import HostAnswer
from vllmray.reporter import Reporter


def leaving_room(
    host: Host, config: ClusterConfig, found: HostAnswer, engine: Container | None, reporter: Reporter
) -> ClusterConfig:
    """The settings with a --gpu-memory-utilization that leaves the host its reserve of unified memory.

    Args:
        engine: the existing one. It may hold its memory, so what is available now is no measure: its share is kept.
    """
    if engine is not None:
        return unified.with_share(config, unified.kept_share(labels.carried_config(engine.labels).get("vllm_args")))
    problem = unified.too_large(found.cards, config)
    config = unified.with_share(config, unified.share_left(found.cards))
    if problem:
        reporter.warning(f"{host.address}: {problem}")
    elif text := unified.words(found.cards, config):
        reporter.note(f"{host.address}: {text}")
    return config


def worker_room(host: Host, config: ClusterConfig, found: HostAnswer, reporter: Reporter) -> ClusterConfig:
    """The same on a worker's host, for the check of free memory: the head's `up` sets what the engine takes."""
    if unified.is_stated(config) or config.accelerator == "cpu":
        return leaving_room(host, config, found, None, reporter)
    if text := unified.most_words(found.cards):
        reporter.note(f"{host.address}: {text}")
    return unified.with_share(config, unified.share_left(found.cards))


def advise(host: Host, config: ClusterConfig, found: HostAnswer, reporter: Reporter, *, several: bool) -> None:
    """Report what would slow or stop the engine on this host, though the node can start.

    Args:
        several: the cluster has other hosts too.
    """
    if text := unified.swap_words(found.cards, found.swap):
        reporter.warning(f"{host.address}: {text}")
    hcas = hcas_of(config, found)
    if gives_rdma(config) and (several or config.rdma):
        for problem in hcas.problems:
            reporter.warning(f"{host.address}: {problem}")
        if hcas.summary:
            reporter.note(f"{host.address}: RDMA: {hcas.summary}")
    elif hcas.usable and several:
        reporter.note(f"{host.address}: {found.interface} has RDMA, and NCCL will use TCP: --rdma lets it use RDMA")
