"""Where a Docker daemon is, and whether it may be spoken to there."""

from __future__ import annotations

import socket
from contextlib import suppress

from docker.context import ContextAPI
from docker.errors import DockerException
from docker.utils import kwargs_from_env

from vllmray.errors import InsecureHostError

CONNECT_TIMEOUT_S = 10
NO_ADDRESS = "the default Docker host"


def knock(address: str) -> None:
    """Raises OSError where nothing listens; the SDK would leave its socket open then (docker 7.2, unixconn.py)."""
    if address.startswith("unix://"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knocking:
            knocking.settimeout(CONNECT_TIMEOUT_S)
            knocking.connect(address.removeprefix("unix://"))


def is_tcp(address: str) -> bool:
    """Whether the SDK would open a TCP connection: for all that names no other way (docker 7.2, utils/utils.py)."""
    return address != NO_ADDRESS and not address.startswith(("unix://", "http+unix://", "ssh://", "npipe://"))


def as_url(address: str, tls: object) -> str:
    """The address as the SDK takes it with certificates."""
    return address.replace("tcp://", "https://", 1) if tls else address


def refuse_bare_tcp(stated: str | None, address: str) -> None:
    """Who reaches a daemon's TCP port without TLS is root on its host, and who is between reads every secret.

    Args:
        stated: by the user; None for DOCKER_HOST or the current Docker context, which has certificates of its own.
        address: what that comes to.

    Raises:
        InsecureHostError: a TCP address, and no certificates to know the daemon by.
    """
    if not is_tcp(address):
        return
    tls = kwargs_from_env().get("tls")
    if stated is None and not kwargs_from_env().get("base_url"):
        tls = tls or ContextAPI.kwargs_from_context().get("tls")
    # For http:// the SDK leaves certificates aside.
    if tls and tls.verify and address.startswith(("tcp://", "https://")):
        return
    raise InsecureHostError(
        f"{address} is a Docker daemon over TCP without TLS: whoever reaches that port is root on its host",
        hint="Use ssh://USER@HOST; or TLS: DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH, as for the docker command. On a "
        "network that nobody else is on, --insecure-docker-tcp.",
    )


def default_address() -> str:
    """Where the SDK goes when it is told nothing: DOCKER_HOST, the current Docker context, the local socket."""
    stated = kwargs_from_env().get("base_url")
    if stated:
        return str(stated)
    with suppress(DockerException, OSError, ValueError, KeyError):
        return str(ContextAPI.kwargs_from_context()["base_url"])  # as docker.from_env does, DOCKER_CONTEXT too
    return NO_ADDRESS
