"""A container that answers a question and is gone."""

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
