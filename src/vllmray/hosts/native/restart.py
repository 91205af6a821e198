"""Restarting a node's process: its supervisor does it on SIGUSR1."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress

import psutil

from vllmray.errors import HostError
from vllmray.hosts.native.processes import living
from vllmray.hosts.native.records import NodeFolder
from vllmray.wait import Clock

LOOK_S = 0.02
STARTING_S = 10.0
"""From the end of the process to the start of the next: processes that it left are found and killed."""


def restarted_by_its_supervisor(folder: NodeFolder, *, address: str, timeout: float, clock: Clock) -> bool:
    """Whether the node's supervisor restarted it; False when there is none, or it ended meanwhile.

    Args:
        address: of the host, for the error.
        timeout: seconds from SIGTERM to SIGKILL.

    Raises:
        HostError: the supervisor could not start it.
    """
    before = folder.state()
    supervisor = living(before.supervisor)
    if supervisor is None:
        return False
    with suppress(psutil.NoSuchProcess):
        supervisor.send_signal(signal.SIGUSR1)

    def restarted_or_gone() -> bool:
        return folder.state().started_at != before.started_at or living(before.supervisor) is None

    if not _come_true(restarted_or_gone, timeout, clock):
        main = living(before.main)
        if main:
            with suppress(psutil.NoSuchProcess):
                main.kill()
        if not _come_true(restarted_or_gone, STARTING_S, clock):
            raise HostError(
                f"{address}: {folder.path.name} did not start again within {STARTING_S:.0f} s",
                hint=f"Read the end of its log: {folder.log}",
            )
    return folder.state().started_at != before.started_at


def _come_true(condition: Callable[[], bool], seconds: float, clock: Clock) -> bool:
    deadline = clock.monotonic() + seconds
    while not condition():
        if clock.monotonic() >= deadline:
            return False
        clock.sleep(LOOK_S)
    return True
