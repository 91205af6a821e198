"""Whether the engine makes tokens: from its own counters, and by asking it for one.

Standard library only; part of what runs in the engine's container. VLLM's /health says 200 on engines whose first
completion then kills them, and on those whose core hangs: it only looks whether a process has ended. Progress is:

- a counter of tokens, or the use of the cache, moved since the last look (/metrics; vllm/v1/metrics/loggers.py). All
  of them come from the engine's core with its answers, so however busy it is they move as long as it works; what the
  API server counts by itself (requests that clients gave up) is not among them.
- or, when nothing moved for a while, a completion of one token was answered.

Before all that it is asked without a key, and has to refuse.
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
"""Between looks at the counters."""
QUIET_S = 30.0
"""Nothing moved for so long: ask for a token."""
BLIND = 5
"""An engine whose counters are turned off gets that many times as long, since a long queue looks like a stall."""


class Endpoint:
    """This container's own server, spoken to as any client would.

    Args:
        key: one that the server takes; None where it asks for none.
        keyed: it is to answer nobody without a key.
    """

    def __init__(self, port: int, *, tls: bool = False, key: str | None = None, keyed: bool = True) -> None:
        self._base = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        self._key = key
        self._keyed = keyed
        self._model: str | None = None
        trust = ssl.create_default_context()
        trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE  # it is ourselves, on loopback
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust)
        )

    def _call(self, path: str, body: dict[str, Any] | None = None, *, timeout: float, key: str | None = None) -> bytes:
        headers = {"Content-Type": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        data = json.dumps(body).encode() if body else None
        request = urllib.request.Request(self._base + path, data=data, headers=headers)
        with self._opener.open(request, timeout=timeout) as reply:
            answer: bytes = reply.read()
        return answer

    def check_key(self) -> None:
        """Ask without a key, unless none is promised to be asked for.

        Raises:
            OpenError: the answer is none of 401.
            OSError: no answer, or one that the server is not there yet.
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
            raise OpenError(f"the endpoint does not refuse a request without the key: HTTP {code} in place of 401")

    def make_one_token(self, timeout: float = COMPLETION_TIMEOUT_S) -> None:
        """One token from the served model, or one embedding; a model that has neither need only be listed.

        Raises:
            OSError: no answer, or an HTTP error other than that the route does not exist.
            ValueError, LookupError: an answer that is none.
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
    """One engine's life: ready when it first made a token, stalled when it makes none any more.

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
        """What is open that must not be; nothing is looked at any more then."""
        self.detail = "loading the model"

    def start(self) -> None:
        """Begin to look, in a thread."""
        threading.Thread(target=self._run, daemon=True).start()

    def stop(self) -> None:
        """Look no more; a question under way is not waited for."""
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
        """Once: has anything moved, and if not for long, can it be made to?"""
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
    """An error before the engine is ready; what the door answers, or nobody, only means that the model loads."""
    refused = isinstance(getattr(error, "reason", None), ConnectionRefusedError)
    if refused or (isinstance(error, urllib.error.HTTPError) and error.code == 503):
        return "loading the model"
    return f"the first completion: {error}"
