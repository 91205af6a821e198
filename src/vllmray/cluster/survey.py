"""`init`: look at hosts, and draft the cluster file for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vllmray.cluster.members import Interruption, Member, all_of
from vllmray.cluster.phases.connect import connect
from vllmray.cluster.phases.facts import gather
from vllmray.cluster.probe.facts import HostFacts, shared_address
from vllmray.config.render import Draft, DraftHost
from vllmray.errors import ConfigError
from vllmray.reporter import Board, Reporter

TITLE = "look"


def survey(members: Sequence[Member], board: Board) -> None:
    """Connect to every host and ask for its facts, all at once.

    Raises:
        VllmrayError: a host can't be reached; of several, one error with all reasons.
    """

    def act(member: Member, reporter: Reporter) -> None:
        connect(member, reporter)
        gather(member, reporter)

    all_of(members, TITLE, act, board, Interruption())


def draft_of(members: Sequence[Member], addresses: Mapping[str, str]) -> Draft:
    """A cluster file for hosts that were surveyed; the first has the head.

    Args:
        addresses: as the user named them, by the hosts' names.

    Raises:
        ConfigError: the hosts have no network in common.
    """
    facts = {member.name: member.facts for member in members if member.facts}
    has_gpus = any(each.gpus for each in facts.values()) or len(facts) < len(members)
    own = _node_ips(facts) if len(facts) == len(members) > 1 else {}
    hosts = [
        DraftHost(
            addresses[member.name],
            "head" if number == 0 else "worker",
            {"node_ip": own[member.name]} if member.name in own else {},
            _found(member),
        )
        for number, member in enumerate(members)
    ]
    return Draft(
        _cluster(members, has_gpus=has_gpus),
        hosts,
        defaults={"gpus": "all"} if has_gpus else {"gpus": 1},
        comments=("Written by `vllmray init`. `vllmray up` starts the cluster; secrets go into .env.",),
        notes={
            "layout": 'sizes chosen from the GPUs; or "TP 2, PP 2" (`vllmray plan` ranks what fits)',
            "gpus": 'all, a count, or ids: "0,2"' if has_gpus else "simulated GPU slots on the CPU",
            "accelerator": "no NVIDIA GPU was found on any host",
        },
    )


def _cluster(members: Sequence[Member], *, has_gpus: bool) -> dict[str, Any]:
    config = members[0].config
    chosen: dict[str, Any] = {"name": config.cluster, "model": config.model, "image": config.image}
    if has_gpus:
        return {**chosen, "layout": "auto"}
    # The memory of a simulated slot is not known, so no layout can be chosen: a stage on each host always works.
    return {**chosen, "accelerator": "cpu", "tensor_parallel_size": 1, "pipeline_parallel_size": len(members)}


def _node_ips(facts: Mapping[str, HostFacts]) -> dict[str, str]:
    """Each host's address in the network that all have."""
    first = next(iter(facts))
    shared = shared_address(facts, first)
    if shared is None:
        lines = [f"{name}: {', '.join(each.ip for each in found.addresses)}" for name, found in facts.items()]
        raise ConfigError(
            "the hosts have no network in common",
            details="\n".join(lines),
            hint="Connect them, or write vllmray.toml yourself, with node_ip for each host (docs/cluster-file.md).",
        )
    return {
        name: next(each.ip for each in found.addresses if each.network == shared.network)
        for name, found in facts.items()
    }


def _found(member: Member) -> list[str]:
    """As in "2 x NVIDIA H100, driver 575.57" and "Docker 28.5.2, 64 CPUs, 503 GiB; 10.0.0.1 on eth0 (100 Gbit/s)"."""
    lines: list[str] = []
    facts, info = member.facts, member.info
    if facts and facts.gpus:
        names = [gpu.name for gpu in facts.gpus]
        cards = ", ".join(
            f"{names.count(gpu.name)} x {gpu.name}" + (f" ({gpu.memory / 1024**3:.0f} GiB)" if gpu.memory else "")
            for gpu in dict.fromkeys(facts.gpus)
        )
        lines.append(f"{cards}, driver {facts.driver}")
    if info:
        lines.append(f"{info.runtime}, {info.cpus} CPUs, {info.memory / 1024**3:.0f} GiB")
    for address in facts.addresses if facts else ():
        speed = f" ({address.speed / 1000:g} Gbit/s)" if address.speed > 0 else ""
        lines.append(f"{address.ip} on {address.interface}{speed}")
    return lines
