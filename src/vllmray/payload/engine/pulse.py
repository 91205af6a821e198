"""Whether the engine generates tokens: by its own counters, and by requesting one.

Standard library only; part of what runs in the engine's container. VLLM's /health answers 200 on engines that die at
their first completion, and on those whose core hangs: it only checks whether a process has exited. Progress means:

- a counter of tokens, or the use of the KV cache, changed since the last check (/metrics;
  vllm/v1/metrics/loggers.py). All of them come from the engine's core with its answers, so they change as long as it
  works, however busy it is. Counters of the API server itself (such as requests that clients cancelled) do not count.
- or, when nothing changed for a while, a completion of one token was answered.

Before the first token, a request without the key is sent, which has to be refused.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from vllmray.payload.engine.closed import OpenError

COUNTERS = (
    "vllm:generation_tokens_total",
    "vllm:prompt_tokens_total",
    "vllm:iteration_tokens_total_count",
    "vllm:kv_cache_usage_perc",
)
COMPLETION_TIMEOUT_S = 300.0
KEY_TIMEOUT_S = 10.0
METRICS_TIMEOUT_S = 5.0
LOOK_S = 10.0
"""Between two reads of the counters."""
QUIET_S = 30.0
"""When no counter changed for so long, a token is requested."""
BLIND = 5
"""The stall timeout is that many times as long without counters, since a long queue then looks like a stall."""


class Endpoint:
    """A client of this container's own server.

    Args:
        key: one that the server accepts; None where it requires none.
        keyed: the server must refuse requests without a key.
    """

    def __init__(self, port: int, *, tls: bool = False, key: str | None = None, keyed: bool = True) -> None:
        self._base = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        self._key = key
        self._keyed = keyed
        self._model: str | None = None
        trust = ssl.create_default_context()
        trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE  # our own server, on loopback
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust)
        )

    def _call(self, path: str, body: dict[str, Any] | None = None, *, timeout: float, key: str | None = None) -> bytes:
        headers = {"Content-Type": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        data = json.dumps(body).encode() if body else None
        request = urllib.request.Request(self._base + path, data=data, headers=headers)
        try:
            with self._opener.open(request, timeout=timeout) as reply:
                answer: bytes = reply.read()
        except urllib.error.HTTPError as error:
            error.close()
            raise
        return answer

    def check_key(self) -> None:
        """Check that a request without the key is refused, where a key is required.

        Raises:
            OpenError: the answer is not 401.
            OSError: no answer, or a 5xx of a server that is not ready yet.
        """
        if not self._keyed:
            return
        try:
            self._call("/v1/models", timeout=KEY_TIMEOUT_S)
            code = 200
        except urllib.error.HTTPError as error:
            if error.code >= 500:
                raise
            code = error.code
        if code != 401:
            raise OpenError(f"the endpoint answered a request without the API key with HTTP {code} instead of 401")

    def make_one_token(self, timeout: float = COMPLETION_TIMEOUT_S) -> None:
        """Request one token of the served model, or one embedding; a model that has neither route need only be listed.

        Raises:
            OSError: no answer, or an HTTP error other than that the route does not exist.
            ValueError, LookupError: an invalid answer.
        """
        if self._model is None:
            self._model = json.loads(self._call("/v1/models", timeout=timeout, key=self._key))["data"][0]["id"]
        for path, body in (("completions", {"prompt": "1", "max_tokens": 1}), ("embeddings", {"input": "1"})):
            try:
                self._call(f"/v1/{path}", {"model": self._model, **body}, timeout=timeout, key=self._key)
                return
            except urllib.error.HTTPError as error:
                if error.code != 404:
                    raise

    def counters(self) -> tuple[str, ...]:
        """The lines of the counters that show progress; empty when the server has none of them.

        Raises:
            OSError: no answer.
        """
        text = self._call("/metrics", timeout=METRICS_TIMEOUT_S, key=self._key).decode(errors="replace")
        return tuple(line for line in text.splitlines() if line.startswith(COUNTERS))


class Pulse:
    """The liveness of one engine: ready when it first made a token, stalled when it makes none any more.

    Args:
        endpoint: the engine's.
        stall_s: ended after so many seconds without progress.
        changed: called whenever ready, stalled or detail changed.
    """

    def __init__(self, endpoint: Endpoint, stall_s: float, changed: Callable[[], object]) -> None:
        self._endpoint = endpoint
        self._stall_s = stall_s
        self._look_s = min(LOOK_S, stall_s / 4)
        self._quiet_s = min(QUIET_S, stall_s / 4)
        self._changed = changed
        self._over = threading.Event()
        self._counters: tuple[str, ...] | None = None
        self._moved_at = 0.0
        self.ready = False
        self.stalled = False
        self.open = ""
        """Why the endpoint is insecure; no further checks are made then."""
        self.detail = "loading the model"

    def start(self) -> None:
        """Start the checks, in a thread."""
        threading.Thread(target=self._run, daemon=True).start()

    def stop(self) -> None:
        """End the checks; a request in progress is not waited for."""
        self._over.set()

    @property
    def silent_for(self) -> float:
        """Seconds since the last progress."""
        return time.monotonic() - self._moved_at

    def _run(self) -> None:
        while not self.ready and not self.open and not self._over.wait(0.5):
            self._try_to_be_ready()
        if self.open:
            return
        self._moved_at = time.monotonic()
        while not self.stalled and not self._over.wait(self._look_s):
            self.look()

    def _try_to_be_ready(self) -> None:
        try:
            self._endpoint.check_key()
            self._endpoint.make_one_token()
            self.ready, self.detail = True, ""
        except OpenError as error:
            self.open = str(error)
        except (OSError, ValueError, LookupError) as error:
            self.detail = _in_words(error)
        self._changed()

    def look(self) -> None:
        """One check: by the counters, and after QUIET_S without a change by requesting a token."""
        if self._has_moved() or self.silent_for < self._quiet_s:
            return
        patience = self._stall_s if self._counters else self._stall_s * BLIND
        if self._makes_a_token(max(patience - self.silent_for, 1.0)) or self._has_moved():
            self._moved_at = time.monotonic()
        elif self.silent_for >= patience:
            self.stalled = True
            self._changed()

    def _has_moved(self) -> bool:
        try:
            counters = self._endpoint.counters()
        except (OSError, ValueError):
            return False
        moved = bool(counters) and counters != self._counters
        if moved:
            self._moved_at = time.monotonic()
        self._counters = counters
        return moved

    def _makes_a_token(self, timeout: float) -> bool:
        try:
            self._endpoint.make_one_token(timeout)
        except (OSError, ValueError, LookupError):
            return False
        return True


def _in_words(error: Exception) -> str:
    """An error before the engine is ready; door.py's 503 or a refused connection only means that the model loads."""
    refused = isinstance(getattr(error, "reason", None), ConnectionRefusedError)
    if refused or (isinstance(error, urllib.error.HTTPError) and error.code == 503):
        return "loading the model"
    return f"the first completion failed: {error}"
