"""Every way in which the Docker SDK fails -> one HostError that names the host.

The SDK lets through what it is made of: where it reads a stream (pull, logs, and every answer that is read here with
its session) a daemon that stops, or a tunnel that ends, is an error of urllib3's, http.client's or requests', or the
parser's, which gets half a message (docker 7.2, api/client.py, _stream_helper; utils/json_stream.py).
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

from vllmray.hosts.docker.errors import explain

BROKEN: tuple[type[Exception], ...] = (
    ConnectionError,
    TimeoutError,
    requests.exceptions.ConnectionError,
    requests.exceptions.Timeout,
    requests.exceptions.ChunkedEncodingError,
    urllib3.exceptions.ProtocolError,
    urllib3.exceptions.TimeoutError,
    http.client.HTTPException,
    # The first half of a message, which is all that came.
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


@contextmanager
def telling(what: str, address: str, way: Callable[[], str] = str) -> Iterator[None]:
    """Whatever the SDK raises leaves as a HostError; where the connection broke, as a BrokenConnectionError.

    Args:
        what: was being done: "pull image:1".
        way: says how the way to the daemon ended, "" where it did not.
    """
    try:
        yield
    except FAILURES as error:
        # What asks for the daemon's version wraps every error in one of the SDK's own (docker 7.2, api/client.py).
        broken = isinstance(error, BROKEN) or isinstance(error.__cause__, BROKEN)
        explanation = error.explanation if isinstance(error, APIError) else None
        words = way() if broken else ""
        text = f"{explanation or error or type(error).__name__}"
        raise explain(address, what, f"{text}\n{words}" if words else text, broken=broken) from error
