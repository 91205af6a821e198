"""plan: parallel sizes from the GPUs of all hosts, where they are to be chosen."""

from __future__ import annotations

from collections.abc import Sequence

from vllmray.cluster.members import Member
from vllmray.cluster.phases.base import ClusterRun
from vllmray.cluster.spec.sizes import resolve_sizes
from vllmray.config.models import ClusterConfig
from vllmray.reporter import Reporter

TITLE = "plan"


def run(up: ClusterRun) -> None:
    """Raises ConfigError where sizes are auto and no layout fits."""
    up.each(TITLE, lambda member, reporter: _plan(up, member, reporter), [up.head])


def _plan(up: ClusterRun, head: Member, reporter: Reporter) -> None:
    config = head.config
    if config.is_auto and not config.cluster_gpus:
        config = config.model_copy(update={"cluster_gpus": cluster_gpus([head, *up.workers])})
    model = up.options.look.model
    if model and (config.cluster_gpus or not config.is_auto):
        config = resolve_sizes(model, config, (), reporter)
    sizes = {name: getattr(config, name) for name in ("tensor_parallel_size", "pipeline_parallel_size")}
    head.config = config
    for member in up.workers:
        member.config = member.config.model_copy(update=sizes)
    with reporter.step("plan") as step:
        step.result(_in_words(config))


def _in_words(config: ClusterConfig) -> str:
    if config.is_auto:
        return "chosen on the head, once its GPUs are known"
    return f"tensor_parallel_size {config.tensor_parallel_size}, pipeline_parallel_size {config.pipeline_parallel_size}"


def cluster_gpus(members: Sequence[Member]) -> tuple[tuple[int, ...], ...]:
    """Bytes of each GPU that a node of each host would get; empty unless they are known of all hosts."""
    found = [_gpus_of(member) for member in members]
    return tuple(found) if all(found) else ()


def _gpus_of(member: Member) -> tuple[int, ...]:
    cards = [gpu.memory for gpu in member.facts.gpus] if member.facts else []
    chosen = member.config.gpus
    if member.config.accelerator != "nvidia" or not all(cards):
        return ()
    if chosen.ids:
        cards = [cards[int(each)] for each in chosen.ids if each.isdigit() and int(each) < len(cards)]
        return tuple(cards) if len(cards) == len(chosen.ids) else ()
    return tuple(cards[: chosen.count] if chosen.count > 0 else cards)
