"""The address of a Docker daemon, and whether a connection to it would be secure."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

from docker.context import ContextAPI
from docker.context.config import get_current_context_name
from docker.errors import ContextException
from docker.utils import kwargs_from_env

from vllmray.errors import InsecureHostError

CONNECT_TIMEOUT_S = 10
DEFAULT_CONTEXT = "default"
DEFAULT_SOCKET = Path("/var/run/docker.sock")
"""Used where no setting names a daemon (docker 7.2, constants.py, DEFAULT_UNIX_SOCKET)."""


def knock(address: str) -> None:
    """Raises OSError where nothing listens; the SDK would leave its socket open then (docker 7.2, unixconn.py)."""
    if address.startswith("unix://"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knocking:
            knocking.settimeout(CONNECT_TIMEOUT_S)
            knocking.connect(address.removeprefix("unix://"))


def is_tcp(address: str) -> bool:
    """Whether the SDK would open a TCP connection, as it does for every other scheme (docker 7.2, utils/utils.py)."""
    return not address.startswith(("unix://", "http+unix://", "ssh://", "npipe://"))


def as_url(address: str, tls: object) -> str:
    """The address as the SDK takes it with certificates."""
    return address.replace("tcp://", "https://", 1) if tls else address


def refuse_bare_tcp(stated: str | None, address: str) -> None:
    """Without TLS anyone who can reach a daemon's TCP port is root on its host, and the network can read every secret.

    Args:
        stated: by the user; None for DOCKER_HOST or the current Docker context, which has certificates of its own.
        address: the address that this resolves to.

    Raises:
        InsecureHostError: a TCP address, and no certificates to verify the daemon with.
    """
    if not is_tcp(address):
        return
    tls = kwargs_from_env().get("tls")
    if stated is None and not kwargs_from_env().get("base_url"):
        tls = tls or ContextAPI.kwargs_from_context().get("tls")
    # For http:// the SDK ignores certificates.
    if tls and tls.verify and address.startswith(("tcp://", "https://")):
        return
    raise InsecureHostError(
        f"{address} is a Docker daemon over TCP without TLS: anyone who can reach that port is root on its host",
        hint="Use ssh://USER@HOST; or TLS: DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH, as for the docker command. On an "
        "isolated network: --insecure-docker-tcp.",
    )


def stated_docker(environ: Mapping[str, str]) -> str | None:
    """What names a Docker daemon in docker's own settings: "DOCKER_HOST", "the Docker context NAME"; None for nothing.

    As docker itself takes them: DOCKER_HOST, DOCKER_CONTEXT, the current context of its configuration file.
    """
    if environ.get("DOCKER_HOST"):
        return "DOCKER_HOST"
    name = environ.get("DOCKER_CONTEXT") or get_current_context_name()
    return None if name == DEFAULT_CONTEXT else f"the Docker context {name}"


def is_without_docker(environ: Mapping[str, str], default_socket: Path) -> bool:
    """No setting names a Docker daemon, and the default socket does not exist, not even one that does not answer."""
    return stated_docker(environ) is None and not os.path.lexists(default_socket)


def address_to_be() -> str | None:
    """As default_address, but None where the Docker context can't be read. Nothing is connected."""
    try:
        return default_address()
    except ContextException:
        return None


def default_address() -> str:
    """The address that the SDK uses by default: DOCKER_HOST, the current Docker context, the local socket.

    Raises:
        ContextException: there is no such context, or it can't be read. The SDK would use the local socket where it
            finds none (docker 7.2, context/api.py, kwargs_from_context); docker's command line refuses, and so do we.
    """
    stated = kwargs_from_env().get("base_url")
    if stated:
        return str(stated)
    try:
        found = ContextAPI.kwargs_from_context()  # as docker.from_env does, DOCKER_CONTEXT too
    except Exception as error:  # docker 7.2 raises Exception itself for a file it can't read (context/context.py)
        raise ContextException(str(error)) from error
    if not found.get("base_url"):
        raise ContextException("the Docker context that DOCKER_CONTEXT or docker's configuration names does not exist")
    return str(found["base_url"])
