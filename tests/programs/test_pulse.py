"""Whether an engine makes tokens, seen through a real HTTP server in vLLM's place."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from vllmray.payload.engine.closed import OpenError
from vllmray.payload.engine.pulse import Endpoint, Pulse
from vllmray.secrets.certificate import self_signed
from vllmray.secrets.store import TLS_CERTIFICATE, TLS_KEY, SecretStore

METRICS = """# HELP vllm:generation_tokens_total Number of generation tokens processed.
vllm:num_requests_running{model="m"} %(running)d
vllm:generation_tokens_total{model="m"} %(tokens)d
vllm:kv_cache_usage_perc{model="m"} %(usage)s
vllm:request_success_total{finished_reason="abort"} %(aborted)d
"""

LISTED = json.dumps({"data": [{"id": "the model"}]})


class FakeServer(BaseHTTPRequestHandler):
    """vLLM's routes as far as a pulse feels them."""

    values: dict[str, Any]
    completions: list[int]
    """Status codes of completions and embeddings, in turn; then 200."""
    blocked: threading.Event
    """Set while completions are answered."""
    seen: list[tuple[str, str | None]]
    without_key: list[int]
    """Status codes of what is asked without a key, in turn; then 401."""

    def do_GET(self) -> None:
        if self.headers.get("Authorization") is None:
            self._answer(self.without_key.pop(0) if self.without_key else 401, LISTED)
        elif self.path == "/metrics":
            self._answer(200, METRICS % self.values if self.values else "no counters\n")
        else:
            self._answer(200, LISTED)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert body["model"] == "the model"
        self.blocked.wait(20)
        code = self.completions.pop(0) if self.completions else 200
        if code == 200 and self.values:
            self.values["tokens"] += 1
        self._answer(code, "{}")

    def _answer(self, code: int, body: str) -> None:
        self.seen.append((self.path, self.headers.get("Authorization")))
        self.send_response(code)
        self.end_headers()
        with contextlib.suppress(OSError):  # the pulse waits no longer
            self.wfile.write(body.encode())

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    FakeServer.values = {"running": 0, "tokens": 0, "usage": "0.0", "aborted": 0}
    FakeServer.completions, FakeServer.seen, FakeServer.without_key = [], [], []
    FakeServer.blocked = threading.Event()
    FakeServer.blocked.set()
    with ThreadingHTTPServer(("127.0.0.1", 0), FakeServer) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        FakeServer.blocked.set()
        server.shutdown()


@pytest.fixture
def pulse(server: ThreadingHTTPServer) -> Iterator[Pulse]:
    made = Pulse(Endpoint(server.server_port, key="secret"), stall_s=1.0, changed=lambda: None)
    yield made
    made.stop()


def until(condition: Any, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(condition())


def completions() -> int:
    return sum(path == "/v1/completions" for path, _ in FakeServer.seen)


def test_ready_is_a_completion_that_was_answered(pulse: Pulse) -> None:
    FakeServer.completions = [500]
    pulse.start()
    assert until(lambda: pulse.ready)
    with_key = [path for path, key in FakeServer.seen if key == "Bearer secret"]
    assert with_key[:3] == ["/v1/models", "/v1/completions", "/v1/completions"]


def test_before_anything_else_a_request_without_the_key_is_refused(pulse: Pulse) -> None:
    pulse.start()
    assert until(lambda: pulse.ready)
    assert FakeServer.seen[0] == ("/v1/models", None)
    assert not pulse.open


def test_one_that_answers_without_the_key_is_never_ready(pulse: Pulse) -> None:
    FakeServer.without_key = [503, 200]  # 503 is the door's: the model loads
    pulse.start()
    assert until(lambda: pulse.open)
    assert pulse.open == "the endpoint answered a request without the API key with HTTP 200 instead of 401"
    assert not pulse.ready
    assert [path for path, _ in FakeServer.seen] == ["/v1/models", "/v1/models"]


@pytest.mark.parametrize("code", [401, 200])
def test_by_https_with_its_own_certificate_the_same_is_asked(
    server: ThreadingHTTPServer, tmp_path: Path, code: int
) -> None:
    store = SecretStore(tmp_path / "state", "lab")
    self_signed("10.0.0.1", store)
    shown = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    shown.load_cert_chain(store.path(TLS_CERTIFICATE), store.path(TLS_KEY))
    server.socket = shown.wrap_socket(server.socket, server_side=True)
    FakeServer.without_key = [code]
    endpoint = Endpoint(server.server_port, tls=True, key="secret")
    with pytest.raises(OpenError) if code == 200 else contextlib.nullcontext():
        endpoint.check_key()
    assert FakeServer.seen == [("/v1/models", None)]


def test_an_endpoint_that_is_to_ask_for_no_key_is_not_asked_to_refuse(server: ThreadingHTTPServer) -> None:
    FakeServer.without_key = [200]
    Endpoint(server.server_port, keyed=False).check_key()
    assert FakeServer.seen == []


def test_a_model_without_completions_makes_an_embedding_or_need_only_be_listed(server: ThreadingHTTPServer) -> None:
    FakeServer.without_key = [200]
    endpoint = Endpoint(server.server_port, keyed=False)
    FakeServer.completions = [404]
    endpoint.make_one_token()
    assert [path for path, _ in FakeServer.seen] == ["/v1/models", "/v1/completions", "/v1/embeddings"]
    FakeServer.completions = [404, 404]
    endpoint.make_one_token()
    assert {key for _, key in FakeServer.seen} == {None}


def test_an_idle_engine_is_asked_for_a_token_now_and_then_and_lives(pulse: Pulse) -> None:
    pulse.start()
    assert until(lambda: pulse.ready)
    time.sleep(3)
    assert not pulse.stalled
    assert until(lambda: completions() >= 3)


def test_a_busy_engine_is_not_asked(pulse: Pulse) -> None:
    pulse.start()
    assert until(lambda: pulse.ready)
    before = completions()
    for _ in range(100):
        FakeServer.values["tokens"] += 1
        time.sleep(0.02)
    assert not pulse.stalled
    assert completions() == before


def test_one_that_reads_a_long_prompt_lives_though_it_makes_no_token_and_answers_nobody(pulse: Pulse) -> None:
    pulse.start()
    assert until(lambda: pulse.ready)
    FakeServer.blocked.clear()
    for step in range(150):
        FakeServer.values["usage"] = f"0.{step:03d}"
        time.sleep(0.02)
    assert not pulse.stalled


def test_one_that_makes_nothing_and_answers_nothing_is_stalled_in_that_time(pulse: Pulse) -> None:
    pulse.start()
    assert until(lambda: pulse.ready)
    FakeServer.blocked.clear()
    began = time.monotonic()
    assert until(lambda: pulse.stalled)
    assert 0.5 <= time.monotonic() - began < 4


def test_what_the_api_server_counts_by_itself_is_no_progress(pulse: Pulse) -> None:
    pulse.start()
    assert until(lambda: pulse.ready)
    FakeServer.blocked.clear()
    for _ in range(200):
        FakeServer.values["aborted"] += 1
        FakeServer.values["running"] += 1
        if pulse.stalled:
            break
        time.sleep(0.02)
    assert pulse.stalled


def test_without_counters_a_long_queue_gets_five_times_as_long(pulse: Pulse) -> None:
    FakeServer.values = {}
    pulse.start()
    assert until(lambda: pulse.ready)
    FakeServer.blocked.clear()
    began = time.monotonic()
    assert until(lambda: pulse.stalled, 15)
    assert 4.5 <= time.monotonic() - began < 9


def test_an_engine_that_is_gone_altogether_is_stalled(server: ThreadingHTTPServer, pulse: Pulse) -> None:
    pulse.start()
    assert until(lambda: pulse.ready)
    server.shutdown()
    server.server_close()
    assert until(lambda: pulse.stalled)
