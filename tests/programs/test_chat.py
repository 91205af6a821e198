"""The client of the OpenAI API against a small server on loopback: pieces as they come, failures as errors of ours."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from vllmray.endpoint.chat import Endpoint
from vllmray.errors import VllmrayError
from vllmray.secrets.certificate import self_signed
from vllmray.secrets.store import TLS_CERTIFICATE, TLS_KEY, SecretStore


class Handler(BaseHTTPRequestHandler):
    """Lists one model, and answers a chat with the words of the last message, one a piece."""

    def do_GET(self) -> None:
        if self.path != "/v1/models":
            self._reply(200, {"hello": "world"})
            return
        self._reply(
            200, {"object": "list", "data": [{"id": "small", "object": "model", "created": 1, "owned_by": "us"}]}
        )

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(asked)  # type: ignore[attr-defined]
        self.server.keys.append(self.headers["Authorization"])  # type: ignore[attr-defined]
        said = asked["messages"][-1]["content"]
        if self.headers["Authorization"] == "Bearer wrong":
            self._reply(401, {"error": {"message": "wrong key"}})
        elif said == "too long":
            self._reply(400, {"error": {"message": "maximum context length"}})
        elif said == "not an API":
            self._reply(200, {"hello": "world"})
        else:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for _ in range(said.count("think")):
                self._event({"reasoning": "hm "})
            for word in said.split(" "):
                self._event({"content": word + " "})
            if said == "broken off":
                return
            if said == "engine died":
                self.wfile.write(b'data: {"error": {"message": "EngineCore encountered an issue", "code": 500}}\n\n')
                return
            self._event({}, "length" if asked.get("max_tokens") == 2 else "stop")
            self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, delta: dict[str, str], reason: str | None = None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        event = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "small", "choices": [choice]}
        self.wfile.write(f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode())

    def _reply(self, code: int, body: dict[str, Any]) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.asked, made.keys = [], []  # type: ignore[attr-defined]
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
def endpoint(server: ThreadingHTTPServer) -> Iterator[Endpoint]:
    made = Endpoint(f"http://127.0.0.1:{server.server_address[1]}/v1")
    yield made
    made.close()


def test_an_answer_comes_piece_by_piece(endpoint: Endpoint, server: Any) -> None:
    model = endpoint.model()
    pieces = endpoint.answer(model, [{"role": "user", "content": "one two"}], max_tokens=7, greedy=True)
    assert [piece for piece in pieces if piece] == ["one ", "two "]
    (asked,) = server.asked
    assert (asked["model"], asked["max_tokens"], asked["temperature"], asked["stream"]) == ("small", 7, 0, True)


@pytest.mark.parametrize(("max_tokens", "reason"), [(2, "length"), (7, "stop")])
def test_at_its_end_an_answer_says_whether_it_was_cut(endpoint: Endpoint, max_tokens: int, reason: str) -> None:
    answer = endpoint.answer("small", [{"role": "user", "content": "one two"}], max_tokens=max_tokens)
    assert [next(answer), next(answer), next(answer)] == ["one ", "two ", ""]
    with pytest.raises(StopIteration) as ended:
        next(answer)
    assert ended.value.value == reason


def test_reasoning_is_a_piece_without_text_each(endpoint: Endpoint) -> None:
    pieces = list(endpoint.answer("small", [{"role": "user", "content": "think think"}], max_tokens=None))
    assert pieces[:2] == ["", ""]
    assert "".join(pieces) == "think think "


def test_without_bounds_the_servers_own_hold(endpoint: Endpoint, server: Any) -> None:
    list(endpoint.answer("small", [{"role": "user", "content": "x"}], max_tokens=None))
    assert server.asked[0].get("temperature") is None
    assert server.asked[0].get("max_tokens") is None


def test_a_refusal_is_an_error_in_the_servers_words(endpoint: Endpoint) -> None:
    with pytest.raises(VllmrayError, match="the request was rejected") as caught:
        list(endpoint.answer("small", [{"role": "user", "content": "too long"}], max_tokens=None))
    assert "maximum context length" in str(caught.value.details)


@pytest.mark.parametrize(
    ("said", "details"),
    [("engine died", "EngineCore encountered an issue"), ("broken off", None)],
)
def test_an_answer_that_breaks_off_is_an_error_after_its_pieces(
    endpoint: Endpoint, said: str, details: str | None
) -> None:
    pieces: list[str] = []
    with pytest.raises(VllmrayError, match="cut off") as caught:
        pieces.extend(endpoint.answer("small", [{"role": "user", "content": said}], max_tokens=None))
    assert "".join(pieces).split() == said.split()
    assert caught.value.details == details


def test_every_character_of_an_answer_arrives_also_those_that_some_take_for_ends_of_lines(endpoint: Endpoint) -> None:
    said = "a\u2028b\u0085c\r\nd é 東"
    pieces = endpoint.answer("small", [{"role": "user", "content": said}], max_tokens=None)
    assert "".join(pieces) == said + " "


def test_what_answers_otherwise_than_the_openai_api_is_an_error_that_says_how(
    endpoint: Endpoint, server: ThreadingHTTPServer
) -> None:
    with pytest.raises(VllmrayError, match="the request failed") as caught:
        list(endpoint.answer("small", [{"role": "user", "content": "not an API"}], max_tokens=None))
    assert "text/event-stream" in str(caught.value.details)
    with (
        closing(Endpoint(f"http://127.0.0.1:{server.server_address[1]}/other")) as other,
        pytest.raises(VllmrayError, match="not an OpenAI API response") as caught,
    ):
        other.model()
    assert caught.value.details == "KeyError: 'data'"


def test_a_wrong_key_is_said_to_be_one(server: ThreadingHTTPServer) -> None:
    endpoint = Endpoint(f"http://127.0.0.1:{server.server_address[1]}/v1", "wrong")
    with pytest.raises(VllmrayError, match="API key"):
        list(endpoint.answer("small", [{"role": "user", "content": "x"}], max_tokens=None))
    endpoint.close()


def test_the_key_is_sent_as_openais_clients_send_it(server: Any) -> None:
    with closing(Endpoint(f"http://127.0.0.1:{server.server_address[1]}/v1", "sk-right")) as endpoint:
        list(endpoint.answer("small", [{"role": "user", "content": "x"}], max_tokens=None))
    assert server.keys == ["Bearer sk-right"]


def test_a_server_is_known_by_its_own_certificate_whatever_it_is_called_by(server: Any, tmp_path: Path) -> None:
    """Made for another address than the one that is asked, and signed by nobody else."""
    store = SecretStore(tmp_path / "state", "lab")
    certificate = self_signed("10.0.0.1", store).chain
    shown = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    shown.load_cert_chain(store.path(TLS_CERTIFICATE), store.path(TLS_KEY))
    server.socket = shown.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # what it says of clients that do not trust it
    url = f"https://localhost:{server.server_address[1]}/v1"
    with closing(Endpoint(url, certificate=certificate)) as endpoint:
        assert endpoint.model() == "small"
    another = self_signed("10.0.0.1", SecretStore(tmp_path / "state", "another")).chain
    for trusted in (another, None):
        with (
            closing(Endpoint(url, certificate=trusted)) as endpoint,
            pytest.raises(VllmrayError, match="cannot connect"),
        ):
            endpoint.model()


def test_nobody_there_is_an_error_with_what_to_do(server: ThreadingHTTPServer) -> None:
    endpoint = Endpoint("http://127.0.0.1:9/v1")
    with pytest.raises(VllmrayError, match="cannot connect") as caught:
        endpoint.model()
    assert "vllmray status" in str(caught.value.hint)
    endpoint.close()
