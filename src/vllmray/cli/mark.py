"""A marker file next to a cluster's secrets: its nodes are containers of this machine's Docker daemon.

A cluster's state is in labels, which only the daemon can show. While its socket does not exist (the daemon is stopped
for an update) the mark says that the cluster is in containers, so that `up` starts no second one natively.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from vllmray.errors import HostError
from vllmray.secure_files import PrivateFolder

if TYPE_CHECKING:
    from vllmray.config.models import Runtime
    from vllmray.hosts.base import Host

RUNTIME = "docker"


class Mark:
    """The marker of one cluster on this machine; several machines may share a home directory."""

    def __init__(self, folder: PrivateFolder, machine: str) -> None:
        self._folder = folder
        self._name = f"runtime.{machine}"

    @property
    def is_there(self) -> bool:
        return bool(self._folder.read(self._name))

    def put(self) -> None:
        if not self.is_there:
            self._folder.write(self._name, RUNTIME + "\n")

    def take_away(self) -> None:
        self._folder.remove(self._name)


def docker_mark(cluster: str) -> Mark:
    """The marker of a cluster."""
    from vllmray.config.settings import state_folder

    return Mark(PrivateFolder(state_folder(), "secrets", cluster), socket.gethostname())


@contextmanager
def marked(host: Host, runtime: Runtime, cluster: str) -> Iterator[None]:
    """Wraps what starts a cluster's nodes: the marker is set before the first container, and stays while one exists."""
    is_here = runtime == "docker" and host.address.startswith("unix://")
    if is_here:
        docker_mark(cluster).put()
    try:
        yield
    finally:
        if is_here:
            unmark(host, cluster)


def unmark(host: Host, *clusters: str) -> None:
    """Remove the markers of clusters without containers; not while the daemon does not answer."""
    from vllmray.cluster.spec.labels import selector

    for cluster in clusters:
        mark = docker_mark(cluster)
        with suppress(HostError):
            if mark.is_there and host.address.startswith("unix://") and not host.containers(selector(cluster)):
                mark.take_away()


def clusters_known_here() -> list[str]:
    """Names of the clusters that this machine has records of."""
    from vllmray.config.settings import state_folder

    return sorted(path.name for path in (state_folder() / "secrets").glob("*"))
