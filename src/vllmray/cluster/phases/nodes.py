"""head, workers: a node on every host, and the engine on the head's."""

from __future__ import annotations

from vllmray.cluster.members import Member
from vllmray.cluster.phases.base import ClusterRun
from vllmray.cluster.run import Outcome
from vllmray.cluster.state import head_config
from vllmray.cluster.up import up_head, up_worker
from vllmray.errors import ClusterStateError
from vllmray.reporter import Reporter

HEAD = "head"
WORKERS = "worker"


def head(up: ClusterRun) -> None:
    """Start the head and the engine, which imports vLLM while the workers join."""

    def start(member: Member, reporter: Reporter) -> None:
        if up.keep_head:
            member.outcome = _running(member)
            return
        member.outcome = up_head(member.host, member.config, up.options_for(member), reporter)

    up.each(HEAD, start, [up.head])


def _running(member: Member) -> Outcome:
    """The head that runs, as it is.

    Raises:
        ClusterStateError: there is none.
    """
    config = head_config(member.host, member.config, member.config.runtime or "docker")
    if config is None:
        raise ClusterStateError(
            f"{member.name}: no head runs here that a worker could join",
            hint="Start it first: `vllmray up` without --only, or with the head's host in it.",
        )
    return Outcome("head", config, "", ready=False)


def workers(up: ClusterRun) -> None:
    """Start all workers at once."""
    outcome = up.head.outcome
    address = outcome.config.head_ip if outcome else up.head.config.head_ip

    def start(member: Member, reporter: Reporter) -> None:
        config = member.config.model_copy(update={"head_ip": address})
        member.outcome = up_worker(member.host, config, up.options_for(member), reporter)

    if up.workers:
        up.each(WORKERS, start, up.workers)
