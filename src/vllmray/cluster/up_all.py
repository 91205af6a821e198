"""`up` of a whole cluster: phases over all hosts, and what is done when one fails or the command is interrupted."""

from __future__ import annotations

from vllmray.cluster.lock import Turn
from vllmray.cluster.members import Interruption, Member, on_each
from vllmray.cluster.phases import connect, facts, hosts, image, model, nodes, plan, prune, ready, secrets
from vllmray.cluster.phases.base import ClusterRun, Phase
from vllmray.cluster.run import Outcome, remove_made
from vllmray.cluster.spec import labels
from vllmray.errors import UserInterruptError, VllmrayError, say_left
from vllmray.reporter import Reporter

PHASES = (
    Phase(connect.TITLE, connect.run),
    Phase(facts.TITLE, facts.run),
    Phase(hosts.TITLE, hosts.run),
    Phase(plan.TITLE, plan.run),
    Phase(image.TITLE, image.run),
    Phase(model.TITLE, model.run),
    Phase(secrets.TITLE, secrets.run),
    Phase(prune.TITLE, prune.run),
    Phase(nodes.HEAD, nodes.head),
    Phase(nodes.WORKERS, nodes.workers),
    Phase(ready.TITLE, ready.run),
)
"""In order; each begins when the one before has ended on every host."""
WAITS = (ready.TITLE,)
"""Phases that start nothing."""


def up_all(up: ClusterRun) -> Outcome:
    """Start every node of the cluster, and wait until the endpoint answers.

    A host that fails is named with its own reason while the others finish the phase; then nothing goes on, and what
    this call made is removed again on all hosts, unless options.retain.

    Raises:
        VllmrayError: as `up` of one host does; of several hosts that failed, one error with all reasons.
        UserInterruptError: Ctrl-C; everything keeps running.
    """
    try:
        for phase in PHASES:
            if up.options.wait or phase.title not in WAITS:
                phase.run(up)
    except (KeyboardInterrupt, UserInterruptError) as error:
        raise _interrupted(up, error) from None
    except Exception as error:
        if not up.options.retain:
            take_back(up, error)
        raise
    if up.head.outcome is None:
        raise VllmrayError(f"{up.head.name}: nothing was started")
    return up.head.outcome


def take_back(up: ClusterRun, why: Exception) -> None:
    """Remove what this run made, on all hosts at once; what can't be removed is named in the error `why`."""
    made = [member for member in up.members if member.outcome and member.outcome.made]
    if not made:
        return

    def remove(member: Member, reporter: Reporter) -> None:
        outcome = member.outcome
        if outcome is None:
            return
        config = outcome.config
        containers = {container.labels[labels.ROLE]: container for container in outcome.made}
        turn = Turn(member.host, config.cluster, image=config.image, holder=up.options.holder, reporter=reporter)
        with reporter.step("removing what was started"), turn:
            remove_made(member.host, config.cluster, containers)

    results = on_each(made, "undo", remove, up.board, Interruption())
    for name, error in results.failures.items():
        say_left(why, f"containers of cluster {up.head.config.cluster} on {name}", error)


def _interrupted(up: ClusterRun, error: BaseException) -> UserInterruptError:
    running = [
        f"{member.name}: {', '.join(container.name for container in member.outcome.made)}"
        for member in up.members
        if member.outcome and member.outcome.made
    ]
    told = error.details if isinstance(error, UserInterruptError) else None
    if not running and not told:
        return UserInterruptError("interrupted; nothing was started")
    return UserInterruptError(
        "stopped waiting; what was started keeps running",
        details="\n".join([*running, *([told] if told else [])]),
        hint="The same command continues; `vllmray status` shows the cluster; `vllmray down` removes it.",
    )
