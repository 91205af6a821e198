"""Every way in which the Docker SDK fails -> one HostError that names the host.

The SDK does not wrap the errors of the libraries below it: where it reads a stream (pull, logs, and every answer that
is read here with its session), a daemon that stops or a tunnel that ends raises an error of urllib3, http.client or
requests, or of the parser, which gets half a message (docker 7.2, api/client.py, _stream_helper; utils/json_stream.py).
"""

from __future__ import annotations

import http.client
import json
import struct
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import requests
import urllib3
from docker.errors import APIError, DockerException, StreamParseError

from vllmray.hosts.docker.errors import explain, unreachable

BROKEN: tuple[type[Exception], ...] = (
    ConnectionError,
    TimeoutError,
    requests.exceptions.ConnectionError,
    requests.exceptions.Timeout,
    requests.exceptions.ChunkedEncodingError,
    urllib3.exceptions.ProtocolError,
    urllib3.exceptions.TimeoutError,
    http.client.HTTPException,
    # The message ended halfway.
    StreamParseError,
    json.JSONDecodeError,
    struct.error,
    tarfile.TarError,
)
FAILURES: tuple[type[Exception], ...] = (
    *BROKEN,
    DockerException,
    requests.exceptions.RequestException,
    urllib3.exceptions.HTTPError,
    OSError,
)
NOT_CONNECTED: tuple[type[BaseException], ...] = (
    FileNotFoundError,
    PermissionError,
    ConnectionRefusedError,
    urllib3.exceptions.NewConnectionError,
    urllib3.exceptions.ConnectTimeoutError,
)
"""Below an error of requests': no connection was made. (NameResolutionError is a NewConnectionError.)"""


@contextmanager
def telling(what: str, address: str, way: Callable[[], str] = str, *, connecting: bool = False) -> Iterator[None]:
    """Whatever the SDK raises becomes a HostError; where the connection broke, a BrokenConnectionError.

    Args:
        what: was being done: "pull image:1".
        way: says why the tunnel to the daemon ended; "" where it did not, or there is none.
        connecting: a first request, without which nothing else can be done: unless the daemon answered it with an
            error, a failure means that the daemon can't be reached.
    """
    try:
        yield
    except FAILURES as error:
        # What asks for the daemon's version wraps every error in one of the SDK's own (docker 7.2, api/client.py).
        broken = isinstance(error, BROKEN) or isinstance(error.__cause__, BROKEN)
        explanation = error.explanation if isinstance(error, APIError) else None
        words = way() if broken else ""
        text = f"{explanation or error or type(error).__name__}"
        text = f"{text}\n{words}" if words else text
        causes = [*_chain(error)]
        if connecting and not any(isinstance(cause, APIError) for cause in causes):
            raise unreachable(address, text, broken=broken) from error
        if isinstance(error, requests.exceptions.RequestException) and any(map(_is_not_connected, causes)):
            raise unreachable(address, text, what=what, broken=broken) from error
        raise explain(address, what, text, broken=broken) from error


def _is_not_connected(error: BaseException) -> bool:
    return isinstance(error, NOT_CONNECTED)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The chain of causes, outermost first."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        yield error
        error = error.__cause__ or error.__context__
