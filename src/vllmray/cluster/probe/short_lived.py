"""Run a short-lived container, or a program in a running container, to its end, and return its output."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from uuid import uuid4

from vllmray.errors import HostError, say_left
from vllmray.hosts.base import Container, ContainerSpec, Host

LEFT_AFTER_S = 300.0
"""A container that ended longer ago was left by a command that was killed; one that has just ended is still read."""


def run_to_end(host: Host, spec: ContainerSpec) -> list[str]:
    """Run it to its end, and return the lines that it printed.

    It gets a unique name: another command may run the same probe on the same host at this moment, and each needs its
    own answer.

    Raises:
        HostError: it could not be started.
    """
    container = start(host, spec)
    try:
        lines = list(host.logs(container.id, follow=True))
    except BaseException as error:
        try:
            host.stop_and_remove(container.id, timeout=0)
        except HostError as left:
            say_left(error, f"{container.name} on {host.address}", left)
        raise
    host.stop_and_remove(container.id, timeout=0)
    return lines


def start(host: Host, spec: ContainerSpec) -> Container:
    """Start it under a unique name; who calls this removes it.

    Raises:
        HostError: it could not be started.
    """
    _sweep(host, spec.labels)
    return host.create_and_start(replace(spec, name=f"{spec.name}-{uuid4().hex[:8]}"))


def remove(host: Host, container: Container) -> None:
    """Remove one that was started, whatever it is doing."""
    host.stop_and_remove(container.id, timeout=0)


def _sweep(host: Host, wanted: Mapping[str, str]) -> None:
    """Remove what commands that were killed have left, and nothing that runs."""
    for left in host.containers(wanted):
        if left.ended and left.ended_unix is not None and time.time() - left.ended_unix > LEFT_AFTER_S:
            with suppress(HostError):  # another command is removing it, or the next one will
                host.stop_and_remove(left.id, timeout=0)


def exec_to_end(host: Host, container: str, argv: tuple[str, ...], timeout: float) -> list[str]:
    """The output of a program run in a running container, until it ends or prints nothing for that many seconds.

    Raises:
        HostError: it could not be started.
    """
    running = host.exec(container, argv)
    lines: list[str] = []
    try:
        while (line := running.read_line(timeout)) is not None:
            lines.append(line)
    except EOFError:
        pass
    finally:
        running.close()
    return lines
