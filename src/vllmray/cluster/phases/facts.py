"""facts: what each host says of itself before any image is there."""

from __future__ import annotations

from vllmray.cluster.members import Member
from vllmray.cluster.phases.base import ClusterRun
from vllmray.cluster.probe.facts import HostFacts, host_facts
from vllmray.reporter import Reporter

TITLE = "facts"


def run(up: ClusterRun) -> None:
    """Raises HostError for the hosts where the shell script fails."""
    up.each(TITLE, gather)


def gather(member: Member, reporter: Reporter) -> None:
    """Ask the host, by its shell."""
    with reporter.step("host facts") as step:
        member.facts = host_facts(member.host)
        step.result("not in reach: only its daemon is" if member.facts is None else in_words(member.facts))


def in_words(facts: HostFacts) -> str:
    """As in "2 x NVIDIA H100, driver 575.57, 10.0.0.1 on eth0"."""
    names = [gpu.name for gpu in facts.gpus]
    cards = [f"{names.count(name)} x {name}" for name in dict.fromkeys(names)]
    driver = [f"driver {facts.driver}"] if facts.driver else []
    places = [f"{address.ip} on {address.interface}" for address in facts.addresses]
    return ", ".join([*(cards or ["no NVIDIA GPU"]), *driver, *places])
