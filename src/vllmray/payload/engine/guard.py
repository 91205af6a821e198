"""Decides which requests reach vLLM. Runs inside vLLM's own server, as its outermost middleware.

Standard library only; vLLM loads it by name (--middleware,
vllm/entrypoints/serve/middleware/register.py: the one that is named last sees a request first).

vLLM's own --api-key guards routes that begin with /v1, /v2, /inference or /cohere, and nothing else: /invocations
answers with a whole completion, /tokenize, /metrics, /pause and others as they are
(vllm/entrypoints/serve/middleware/authenticate.py, 0.32). Here a route answers only when it is listed, so one that a
new version adds is closed until it is reviewed and listed. A route that is not listed gets the same answer as a path
that does not exist, byte for byte.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import os
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from vllmray.payload.protocol import GUARD_SETTINGS, ROOT

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = ("GET /health",)
"""Answered without a key: the health check of load balancers, which reveals nothing else."""
METRICS = "GET /metrics"
"""Answered to requests from this host, or with the scrape token."""
KEYED = (
    "GET /v1/models",
    "POST /v1/chat/completions",
    "POST /v1/completions",
    "POST /v1/responses",
    "GET /v1/responses/{id}",
    "POST /v1/responses/{id}/cancel",
    "POST /v1/embeddings",
    "POST /v1/audio/transcriptions",
    "POST /v1/audio/translations",
    "WEBSOCKET /v1/realtime",
    "POST /v1/messages",
    "POST /v1/messages/count_tokens",
)
"""The OpenAI and Anthropic routes: answered with the API key."""

WEBSOCKET = "WEBSOCKET"
NOT_FOUND = json.dumps({"detail": "Not Found"}, separators=(",", ":")).encode()  # Starlette's own, of FastAPI
UNAUTHORIZED = json.dumps(
    {"error": {"message": "a valid API key is needed", "type": "invalid_request_error", "code": "invalid_api_key"}}
).encode()


class Routes:
    """Methods and paths, each path exact but for {…}, which stands for one segment."""

    def __init__(self, routes: Iterable[str]) -> None:
        self._exact: set[tuple[str, str]] = set()
        self._patterns: list[tuple[str, re.Pattern[str]]] = []
        for route in routes:
            method, path = route.split(" ", 1)
            if "{" in path:
                # One segment of the characters of ids: no slash, plain or percent-encoded, and no dots (traversal).
                segments = re.split(r"\{\w+\}", path)
                self._patterns.append((method, re.compile(r"[\w-]{1,128}".join(map(re.escape, segments)), re.ASCII)))
            else:
                self._exact.add((method, path))

    def have(self, method: str, path: str) -> bool:
        """Whether that route is listed; case and slashes must match."""
        if (method, path) in self._exact:
            return True
        return any(wanted == method and pattern.fullmatch(path) for wanted, pattern in self._patterns)


class Keys:
    """Secrets, compared in constant time: always against the digests of all of them."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = [_digest(key.encode()) for key in keys]

    def have(self, given: bytes) -> bool:
        digest = _digest(given)
        found = False
        for known in self._digests:
            found |= hmac.compare_digest(known, digest)
        return found


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


class Policy:
    """Which requests are allowed, and with which key."""

    def __init__(
        self, *, keys: Iterable[str] | None, scrape_tokens: Iterable[str] = (), more: Iterable[str] = ()
    ) -> None:
        """None for keys: the listed routes are open to anyone. more: further paths for GET and POST, with the key."""
        self._open = Routes(OPEN)
        self._metrics = Routes([METRICS])
        self._keyed = Routes([*KEYED, *(f"{method} {path}" for path in more for method in ("GET", "POST"))])
        self._keys = None if keys is None else Keys(keys)
        self._scrape = Keys(scrape_tokens)

    def status(self, scope: Scope) -> int:
        """The status for a request by its ASGI scope: 200 to let it through, else 401 or 404."""
        method, path = method_of(scope), route_path(scope)
        if self._open.have(method, path):
            return 200
        if self._metrics.have(method, path):
            return 200 if is_loopback(scope) or self._scrape.have(given_key(scope)) else 404
        if method == "OPTIONS" and is_preflight(scope):
            method = header(scope, b"access-control-request-method").decode("latin-1")
            return 200 if self._keyed.have(method, path) else 404
        if not self._keyed.have(method, path):
            return 404
        return 200 if self._keys is None or self._keys.have(given_key(scope)) else 401


def method_of(scope: Scope) -> str:
    """The method as in the lists above; empty for an HTTP request whose method is "WEBSOCKET"."""
    if scope["type"] == "websocket":
        return WEBSOCKET
    method = str(scope["method"])
    return "" if method == WEBSOCKET else method


def route_path(scope: Scope) -> str:
    """The path that the server routes by: without the root_path prefix (starlette/_utils.py)."""
    path, root = str(scope["path"]), str(scope.get("root_path") or "")
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/"):
        return path[len(root) :]
    return path


def header(scope: Scope, name: bytes) -> bytes:
    """The value of a header; empty when it is missing, or given twice and so ambiguous."""
    values = [value for key, value in scope["headers"] if key.lower() == name]
    return bytes(values[0]) if len(values) == 1 else b""


def given_key(scope: Scope) -> bytes:
    """A request's key: "Authorization: Bearer KEY" as OpenAI's clients send it, or Anthropic's "x-api-key: KEY"."""
    scheme, _, key = header(scope, b"authorization").partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" else header(scope, b"x-api-key")


def is_loopback(scope: Scope) -> bool:
    """Whether the client is on this host. A Unix socket has no address, and does not count."""
    try:
        address = ipaddress.ip_address((scope.get("client") or ("",))[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.is_loopback


def is_preflight(scope: Scope) -> bool:
    """Whether it is a browser's CORS preflight request, which can carry no key (Fetch standard)."""
    return bool(header(scope, b"origin") and header(scope, b"access-control-request-method"))


def policy_of(folder: Path, environ: Mapping[str, str]) -> Policy:
    """The policy by the variable GUARD_SETTINGS and the files in secrets/, with one secret per line.

    Raises:
        LookupError, OSError, ValueError: something is missing or empty; the server then does not start.
    """
    settings = json.loads(environ[GUARD_SETTINGS])
    keys = _lines(folder / "secrets/api_key") if settings["keyed"] else None
    return Policy(keys=keys, scrape_tokens=_lines(folder / "secrets/scrape_token"), more=settings["allow_routes"])


def _lines(path: Path) -> list[str]:
    lines = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{path} is empty")
    return lines


class Guard:
    """ASGI middleware; vLLM passes only the application to it."""

    def __init__(self, app: App, policy: Policy | None = None) -> None:
        self._app = app
        self._policy = policy or policy_of(ROOT, os.environ)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        status = self._policy.status(scope) if scope["type"] in ("http", "websocket") else 404
        if status == 200:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()  # the connect event; closing before accepting answers 403 (ASGI specification, "WebSocket")
            await send({"type": "websocket.close", "code": 1008})
        else:
            await refuse(status, send)


async def refuse(status: int, send: Send) -> None:
    """Send the complete 401 or 404; the 404 is FastAPI's own for a path that does not exist."""
    body = NOT_FOUND if status == 404 else UNAUTHORIZED
    headers = [(b"content-length", str(len(body)).encode()), (b"content-type", b"application/json")]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
