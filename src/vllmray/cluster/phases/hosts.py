"""hosts: whether these hosts can be one cluster; every problem at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace

from vllmray.cluster.phases.base import ClusterRun
from vllmray.cluster.probe.facts import Address, HostFacts, shared_address
from vllmray.cluster.spec import labels
from vllmray.cluster.spec.gpus import stated_gpus
from vllmray.config.explain import Problem, config_error
from vllmray.errors import HostError
from vllmray.reporter import Reporter

TITLE = "hosts"
HINT = "Correct the cluster file, or the hosts, and run the same command again."


def run(up: ClusterRun) -> None:
    """Check the hosts against each other, and give the nodes their head's address.

    Raises:
        HostError: lists every problem.
    """
    up.each(TITLE, lambda _, reporter: _check(up, reporter), [up.head])


def _check(up: ClusterRun, reporter: Reporter) -> None:
    with reporter.step("hosts") as step:
        problems = [*_same_host(up), *_unlike_processors(up), *_rootless(up), *_too_few_gpus(up)]
        if problems:
            count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
            raise HostError(f"the hosts can't be one cluster: {count}", details="\n".join(problems), hint=HINT)
        address = head_address(up)
        if address:
            for member in up.members:
                own = {"node_ip": address} if member.role == labels.HEAD else {}
                member.config = member.config.model_copy(update={"head_ip": address, **own})
        step.result(f"{len(up.members)} hosts" + (f", head {address}" if address else ""))


def head_address(up: ClusterRun) -> str | None:
    """The one in the file, or the one in a network of all hosts; None where the hosts could not tell."""
    if up.head.config.node_ip:
        return up.head.config.node_ip
    facts = {**known_facts(up)}
    interface = up.head.config.network_interface
    if interface and up.head.name in facts:
        own = tuple(each for each in facts[up.head.name].addresses if each.interface == interface)
        facts[up.head.name] = replace(facts[up.head.name], addresses=own)
    if len(facts) < len(up.members) or any(not each.addresses for each in facts.values()):
        return None
    found = shared_address(facts, up.head.name)
    if found is None:
        places = [f"{name}: {', '.join(a.ip for a in each.addresses)}" for name, each in facts.items()]
        raise config_error(
            [Problem("[[hosts]]", f"no network that all hosts have an address in ({'; '.join(places)})")],
            hint="Name each host's address with node_ip.",
        )
    return found.ip


def known_facts(up: ClusterRun) -> Mapping[str, HostFacts]:
    """By host; without those of which only the daemon is in reach."""
    return {member.name: member.facts for member in up.members if member.facts}


def _same_host(up: ClusterRun) -> Iterator[str]:
    """Two entries that lead to one daemon: the second node would take the first one's name and ports.

    A daemon's id alone does not tell: cloned hosts have the same (Docker before 24 keeps it in /etc/docker/key.json).
    """
    same: dict[tuple[str, tuple[Address, ...]], list[str]] = defaultdict(list)
    for member in up.members:
        if member.info and member.info.id and member.facts and member.facts.addresses:
            same[member.info.id, member.facts.addresses].append(member.name)
    for names in same.values():
        if len(names) > 1:
            yield f"{' and '.join(names)} are the same Docker daemon: list it once"


def _unlike_processors(up: ClusterRun) -> Iterator[str]:
    kinds = {member.name: member.info.architecture for member in up.members if member.info and member.info.architecture}
    if len(set(kinds.values())) > 1:
        yield "unlike processors: " + ", ".join(f"{name} is {kind}" for name, kind in kinds.items())


def _rootless(up: ClusterRun) -> Iterator[str]:
    for member in up.members:
        if member.info and not member.info.host_network and member.config.network == "host":
            yield f"{member.name}: its Docker daemon is rootless, and other hosts can't reach a node in it"


def _too_few_gpus(up: ClusterRun) -> Iterator[str]:
    """Where every host's GPUs are known: too few for the sizes, before anything is pulled."""
    if up.head.config.is_auto or up.keep_head:
        return
    counts: dict[str, int] = {}
    for member in up.members:
        count = stated_gpus(member.config)
        if count is None and member.config.accelerator == "nvidia" and member.facts and member.facts.gpus:
            count = len(member.facts.gpus)
        if count is None:
            return
        counts[member.name] = count
    wanted = up.head.config.world_size
    if sum(counts.values()) < wanted:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        config = up.head.config
        yield (
            f"{sum(counts.values())} GPUs ({listed}), and the engine takes {wanted} (tensor_parallel_size "
            f"{config.tensor_parallel_size} x pipeline_parallel_size {config.pipeline_parallel_size})"
        )
