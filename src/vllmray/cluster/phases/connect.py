"""connect: open a connection to every host, and learn what runs containers there."""

from __future__ import annotations

from vllmray.cluster.members import Member
from vllmray.cluster.phases.base import ClusterRun
from vllmray.hosts.base import Host
from vllmray.reporter import Reporter

TITLE = "connect"


def run(up: ClusterRun) -> None:
    """Raises HostError for the hosts that do not answer."""
    up.each(TITLE, connect)


def connect(member: Member, reporter: Reporter) -> None:
    """Open the connection, unless it is open."""
    with reporter.step("connection") as step:
        host = reach(member)
        host.ping()
        member.info = host.info()
        step.result(f"{member.info.runtime}, {member.info.cpus} CPUs, {member.info.memory / 1024**3:.0f} GiB")


def reach(member: Member) -> Host:
    """The host, connected if it was not; it answered then.

    Raises:
        HostError: it does not answer.
    """
    if member.connected is None:
        member.connected = member.connect()
    return member.connected
