"""Where Podman's Docker-compatible API differs from Docker's (seen with podman 5.4 and 5.8).

It ignores what a new container says of volumes that do not exist yet (size, being in memory, labels), has no init for a
container in the host's PID namespace, answers 500 where Docker answers 409, and joins filters by label with "or". It
creates a missing folder of a bind mount. Containers start again after a reboot by a systemd unit that must be enabled
(podman-restart(1)).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from docker import APIClient
from docker.errors import APIError

from vllmray.hosts.base import ContainerSpec

NAME = "Podman"
CONFLICT = 409
STATES = ("already in use", "as it is running", "container state improper")
"""In the words of a 500 that is a conflict: the name is taken; a container that runs is not removed."""


def is_podman(version: Mapping[str, Any]) -> bool:
    """Whether it is Podman: a component in GET /version is named "Podman Engine"."""
    return any(str(component.get("Name")).startswith(NAME) for component in version.get("Components") or [])


def boot_command(*, rootless: bool) -> str:
    """What makes containers with a restart policy start after a reboot."""
    if rootless:
        return "systemctl --user enable podman-restart.service && loginctl enable-linger"
    return "systemctl enable podman-restart.service"


def make_volumes(api: APIClient, spec: ContainerSpec) -> None:
    """The volumes in memory of a spec; those that exist are left as they are."""
    for mount in spec.mounts:
        if mount.kind == "memory":
            options = {"type": "tmpfs", "device": "tmpfs", "o": mount.memory_options}
            api.create_volume(mount.source, driver="local", driver_opts=options, labels=dict(mount.labels))


def is_conflict(error: APIError) -> bool:
    """Whether the request failed because of what exists or runs there, with either daemon."""
    return error.status_code == CONFLICT or any(words in str(error.explanation) for words in STATES)
