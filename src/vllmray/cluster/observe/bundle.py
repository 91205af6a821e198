"""`logs --bundle`: what a host contributes to a bug report about a cluster."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from vllmray.cluster.spec.labels import carried_config, selector
from vllmray.errors import VllmrayError
from vllmray.hosts.base import Container, Host

LOG_LINES = 2000
"""Of each container's log, the last ones."""


@dataclass(slots=True)
class Gathered:
    """Texts by the names of their files, and what could not be read."""

    files: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def add(self, name: str, read: Callable[[], str]) -> None:
        """Add a text, or note why it can't be read: a report about what is broken must not fail with it."""
        try:
            self.files[name] = read()
        except Exception as error:  # noqa: BLE001  # as above
            self.missing.append(f"{name}: {type(error).__name__}: {error}")


def gather(host: Host, cluster: str, found: Gathered) -> None:
    """The settings that its containers carry, and the ends of their logs."""
    containers: list[Container] = []
    try:
        containers = host.containers(selector(cluster))
    except VllmrayError as error:
        found.missing.append(f"containers: {error.message}")
    for container in containers:
        found.add(f"settings/{container.name}.json", partial(_settings, container))
        found.add(f"logs/{container.name}.log", partial(_tail, host, container))


def _settings(container: Container) -> str:
    return json.dumps(carried_config(container.labels), indent=2)


def _tail(host: Host, container: Container) -> str:
    return "\n".join(host.logs(container.id, tail=LOG_LINES))
