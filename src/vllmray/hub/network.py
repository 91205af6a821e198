"""Requests to a hub: a timeout that always holds, and an explanation when there is no answer."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from vllmray.errors import ConfigError
from vllmray.hub.files import WITHOUT, HubUnreachableError

T = TypeVar("T")

REQUEST_S = 10.0
"""For a connection, and for each piece of an answer."""
ANSWER_S = 30.0
"""For all requests to a hub together."""


def within(seconds: float, ask: Callable[[], T]) -> T:
    """What ask() returns or raises; after the timeout it continues in a thread that is not waited for.

    A timeout of a connection bounds neither the lookup of a name, nor the try of each of a name's addresses in turn,
    nor an answer that comes byte by byte.

    Raises:
        TimeoutError: the time is over.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(ask())
        except Exception as error:  # noqa: BLE001  # result() raises it again
            future.set_exception(error)

    threading.Thread(target=run, name="hub", daemon=True).start()
    return future.result(timeout=seconds)


def check_endpoint(endpoint: str, variable: str) -> None:
    """Raises ConfigError unless it is an HTTP URL; without this each library fails in its own way."""
    try:
        parts = urlsplit(endpoint)
        right = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        right = False
    if not right:
        raise ConfigError(f"{variable} is not a URL", hint=f"Write it as https://HOST, or unset {variable}.")


def host_of(url: str) -> str:
    """Host and port of a URL for messages, without user and password."""
    return urlsplit(url).netloc.rpartition("@")[2]


def unreachable(error: BaseException, *, model: str, endpoint: str, put_there: str) -> HubUnreachableError:
    """The error for a hub that can't be reached.

    Args:
        put_there: how the model gets into the cache beforehand.
    """
    proxy = _proxy(endpoint)
    through = f" through the proxy {host_of(proxy)}" if proxy else ""
    return HubUnreachableError(
        f"{model}: cannot reach hub {host_of(endpoint)}{through}: {_why(error)}",
        hint=f"Check network and proxy (HTTPS_PROXY, NO_PROXY); or {put_there}. {WITHOUT}",
    )


def _proxy(endpoint: str) -> str | None:
    """The proxy that the libraries use: they call the same function of the standard library."""
    url, proxies = urlsplit(endpoint), getproxies()
    found = proxies.get(url.scheme) or proxies.get("all")
    return None if found is None or proxy_bypass(url.hostname or "") else found


def _why(error: BaseException) -> str:
    """The system's own error, which the libraries wrap in theirs."""
    for cause in _chain(error):
        kind = type(cause).__name__
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed ({cause.reason or cause}); if a proxy has its own CA, set SSL_CERT_FILE"
        if isinstance(cause, socket.gaierror):
            return "DNS lookup failed"
        if isinstance(cause, ConnectionRefusedError):
            return "connection refused"
        if isinstance(cause, TimeoutError) or kind.endswith("Timeout"):
            return "timed out"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
    return str(error)[:200] or type(error).__name__


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The chain of causes, innermost first."""
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) and cause not in causes:
        causes.append(cause)
    return reversed(causes)
