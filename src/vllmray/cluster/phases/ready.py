"""ready: every GPU is in Ray, and the engine has answered a completion."""

from __future__ import annotations

from dataclasses import replace

from vllmray.cluster import waits
from vllmray.cluster.members import Member
from vllmray.cluster.phases.base import ClusterRun
from vllmray.cluster.run import Outcome, evidence
from vllmray.cluster.spec import labels
from vllmray.cluster.state import by_role
from vllmray.errors import ClusterStateError
from vllmray.reporter import Reporter

TITLE = "engine"


def run(up: ClusterRun) -> None:
    """Not where only workers were started, which have joined then.

    Raises:
        WaitTimeoutError, WorkloadError: the engine does not become ready.
    """
    if up.keep_head:
        return

    def wait(member: Member, reporter: Reporter) -> Outcome:
        outcome = member.outcome
        if outcome is None:
            raise ClusterStateError(f"{member.name}: no head was started here")
        containers = by_role(member.host, outcome.config.cluster)
        fresh = any(container.labels[labels.ROLE] == labels.ENGINE for container in outcome.made)
        with evidence():
            status = waits.for_engine(member.host, outcome.config, containers, reporter, fresh=fresh)
        return replace(outcome, ready=True, status=status)

    up.head.outcome = up.each(TITLE, wait, [up.head])[up.head.name]
