"""prune: nodes on hosts that are not in the cluster file any more."""

from __future__ import annotations

from vllmray.cluster.down import down
from vllmray.cluster.members import Member
from vllmray.cluster.phases.base import ClusterRun
from vllmray.cluster.phases.connect import reach
from vllmray.reporter import Reporter

TITLE = "prune"


def run(up: ClusterRun) -> None:
    """Drain and remove them if that was asked for; else say that they are there.

    Raises:
        HostError: one could not be removed.
    """
    if not up.former:
        return
    if not up.prune:
        names = ", ".join(member.name for member in up.former)
        up.board.warning(
            f"no longer in the cluster file, and not removed: {names}; `vllmray up --prune` removes its nodes"
        )
        return

    def remove(member: Member, reporter: Reporter) -> None:
        down(reach(member), up.head.config.cluster, reporter, holder=up.options.holder)

    up.each(TITLE, remove, up.former)
