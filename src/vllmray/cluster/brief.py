"""Questions that end with their answer: of a container that is gone then, or of a program in one that runs."""

from __future__ import annotations

from vllmray.hosts.base import ContainerSpec, Host


def said_by(host: Host, spec: ContainerSpec) -> list[str]:
    """Run it to its end, and return the lines that it printed; one of that name left from before goes first.

    Raises:
        HostError: it could not be started.
    """
    for left in host.containers(spec.labels):
        if left.name == spec.name:
            host.stop_and_remove(left.id, timeout=0)
    container = host.create_and_start(spec)
    try:
        return list(host.logs(container.id, follow=True))
    finally:
        host.stop_and_remove(container.id, timeout=0)


def answered_in(host: Host, container: str, argv: tuple[str, ...], timeout: float) -> list[str]:
    """What a program says that is run in a running container, until it ends or is silent for that many seconds.

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
