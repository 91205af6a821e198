"""A lock that Docker releases when its holder ends: a container that reads its standard input to the end.

The container's name is unique. The command that made the container is attached to its standard input; when that
connection ends, and it does with the command's process, Docker closes the input (StdinOnce; moby 20.10,
container/stream/attach.go), the program ends, and Docker removes the container (AutoRemove). So no command
has to find out whether another one still runs.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

import requests
from docker import APIClient
from docker.errors import APIError, DockerException, NotFound

from vllmray.errors import HeldError
from vllmray.hosts.base import ContainerSpec
from vllmray.hosts.docker.podman import is_conflict
from vllmray.hosts.docker.spec import creation

# Without the site-packages of an image for vLLM, whose .pth files run programs of their own.
PROGRAM = ("python3", "-IS", "-c", "import sys; sys.stdin.read()")
STALE_S = 10.0
"""A container created that long ago and not started: its creator ended in between."""
END_TIMEOUT_S = 10
ATTEMPTS = 5


class DockerLock:
    """A Lock; attached before the start, so that there is no moment in which it would outlive this process."""

    def __init__(self, api: APIClient, container: str) -> None:
        self._api = api
        self._id = container
        hijacked: Any = api.attach_socket(container, params={"stdin": 1, "stream": 1})
        # The response holds the connection, so it is kept and closed with it.
        self._held: tuple[Any, ...] = (hijacked._response, hijacked)
        self._connection: socket.socket = getattr(hijacked, "_sock", hijacked)
        try:
            api.start(container)
        except BaseException:
            self._hang_up()
            raise

    def close(self) -> None:
        """Returns when the container is gone, so that the next command does not find it."""
        self._hang_up()
        with suppress(NotFound):
            try:
                self._api.wait(self._id, condition="removed", timeout=END_TIMEOUT_S)
            except (DockerException, requests.exceptions.RequestException):
                _remove(self._api, self._id)

    def _hang_up(self) -> None:
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        for closable in self._held:
            with suppress(OSError, ValueError):
                closable.close()


def take(api: APIClient, name: str, image: str, labels: Mapping[str, str]) -> DockerLock:
    """The lock of that name.

    Raises:
        HeldError: another command holds it.
        DockerException, RequestException: as the SDK raises them.
    """
    for _ in range(ATTEMPTS):
        try:
            created = api.create_container(**_creation(api, name, image, labels))["Id"]
        except APIError as error:
            if not is_conflict(error):
                raise
            _make_way(api, name)
            continue
        try:
            return DockerLock(api, created)
        except BaseException as error:
            _remove(api, created)
            if not isinstance(error, NotFound):
                raise
            # It took this command so long to get here that another has removed the container as stale.
    raise HeldError(f"lock {name}: other commands took it in {ATTEMPTS} attempts", labels={})


def _creation(api: APIClient, name: str, image: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """As restricted as any other container, without network or log."""
    spec = ContainerSpec(
        name=name, image=image, argv=PROGRAM, labels=labels, network="none", read_only=True, init=False
    )
    made = creation(api, spec)
    made["host_config"] |= {"AutoRemove": True, "LogConfig": {"Type": "none", "Config": {}}}
    # Podman removes a container by its stop signal first, and would wait 10 s for a program that ignores SIGTERM.
    return made | {"stdin_open": True, "stop_signal": "SIGKILL"}


def _make_way(api: APIClient, name: str) -> None:
    """Remove what is left of a lock whose holder is gone; raises HeldError when it is held."""
    with suppress(NotFound):
        found = api.inspect_container(name)
        status = found["State"]["Status"]
        if status in ("exited", "dead") or (status == "created" and _age(api, found) > STALE_S):
            try:
                # By its id, and only while it does not run: its maker may start it, or another have taken its place.
                api.remove_container(found["Id"], v=True)
                return
            except APIError as error:
                if not is_conflict(error):
                    raise
        raise HeldError(f"lock {name} is held by another command", labels=found["Config"]["Labels"] or {})


def _age(api: APIClient, found: Mapping[str, Any]) -> float:
    """Seconds since the container was created, both by the daemon's clock."""
    now = datetime.fromisoformat(api.info()["SystemTime"])
    return (now - datetime.fromisoformat(found["Created"])).total_seconds()


def free(api: APIClient, name: str) -> None:
    """Release the lock of that name for any holder; raises DockerException, RequestException as the SDK does."""
    try:
        api.remove_container(name, force=True, v=True)
    except NotFound:
        pass
    except APIError as error:
        if not is_conflict(error):  # it is being removed already
            raise


def _remove(api: APIClient, container: str) -> None:
    """Remove a lock's container; an error is left to the next command that takes the lock."""
    with suppress(DockerException, requests.exceptions.RequestException):
        free(api, container)
