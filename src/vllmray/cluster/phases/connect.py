"""connect: open a connection to every host, and learn what runs containers there."""

from __future__ import annotations

from vllmray.cluster.members import Member
from vllmray.cluster.phases.base import ClusterRun
from vllmray.reporter import Reporter

TITLE = "connect"


def run(up: ClusterRun) -> None:
    """Raises HostError for the hosts that do not answer."""
    up.each(TITLE, connect)


def connect(member: Member, reporter: Reporter) -> None:
    """Open the connection, unless it is open."""
    with reporter.step("connection") as step:
        if member.connected is None:
            member.connected = member.connect()
        member.connected.ping()
        member.info = member.connected.info()
        step.result(f"{member.info.runtime}, {member.info.cpus} CPUs, {member.info.memory / 1024**3:.0f} GiB")
