"""What stands at the endpoint's port while no engine does, asked by real clients."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.programs.support import free_port
from vllmray.payload.engine.door import Door
from vllmray.payload.engine.serve import listens, share
from vllmray.secrets.certificate import self_signed
from vllmray.secrets.store import SecretStore


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def door(port: int) -> Iterator[Door]:
    made = Door(port, address="127.0.0.1")
    made.open()
    yield made
    made.close()


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"])
def test_whatever_is_asked_it_says_when_to_ask_again(door: Door, port: int, method: str) -> None:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    client.request(method, "/v1/chat/completions", body=b"x" * 100_000 if method == "POST" else None)
    answer = client.getresponse()
    assert answer.status == 503
    assert answer.headers["Retry-After"] == "10"
    assert answer.headers["Connection"] == "close"
    body = answer.read()
    if method == "HEAD":
        assert body == b""
    else:
        assert json.loads(body)["error"]["type"] == "service_unavailable"


def test_it_tells_nothing_of_the_cluster(door: Door, port: int) -> None:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    client.request("GET", "/health")
    answer = client.getresponse()
    text = str(answer.headers) + answer.read().decode()
    assert "vllmray" in text
    assert not any(word in text for word in ("Python", "GPU", "Ray", "10."))


@pytest.mark.parametrize("sent", [b"", b"\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01" + b"\0" * 50, b"G" * 70_000])
def test_nonsense_does_not_end_it(door: Door, port: int, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as nonsense:
        nonsense.sendall(sent)
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    client.request("GET", "/")
    assert client.getresponse().status == 503


def test_one_that_sends_nothing_holds_nobody_up(door: Door, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        client.request("GET", "/")
        assert client.getresponse().status == 503


def test_it_speaks_tls_where_the_engine_will(port: int, tmp_path: Path) -> None:
    certificate, key = tmp_path / "crt", tmp_path / "key"
    made = self_signed("127.0.0.1", SecretStore(tmp_path / "state", "vllmray"))
    certificate.write_text(made.chain)
    key.write_text(made.key.get_secret_value())
    door = Door(port, (str(certificate), str(key)), address="127.0.0.1")
    door.open()
    try:
        context = ssl.create_default_context(cafile=str(certificate))
        client = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=5)
        client.request("GET", "/")
        assert client.getresponse().status == 503
        with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert b"503" not in plain.recv(100)
    finally:
        door.close()


def test_closed_it_refuses_and_opened_again_it_answers(port: int) -> None:
    door = Door(port, address="127.0.0.1")
    for _ in range(2):
        door.open()
        door.open()
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        client.request("GET", "/")
        assert client.getresponse().status == 503
        door.close()
        door.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)


def test_none_that_came_before_it_closed_goes_without_an_answer(port: int) -> None:
    """Connections that wait to be accepted would be reset by the close."""
    door = Door(port, address="127.0.0.1")
    door.open()
    answers: list[int | str] = []

    def ask() -> None:
        try:
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            client.connect()
        except ConnectionRefusedError:
            return  # it came after
        try:
            client.request("GET", "/")
            answers.append(client.getresponse().status)
        except OSError as error:
            answers.append(repr(error))

    clients = [threading.Thread(target=ask) for _ in range(100)]
    for number, client in enumerate(clients):
        client.start()
        if number == 60:
            door.close()
    for client in clients:
        client.join(10)
    assert len(answers) >= 40
    assert set(answers) == {503}


def test_a_server_can_bind_and_listen_beside_it(door: Door, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As vLLM does: it binds at once, without asking to share the port, and listens much later."""
    monkeypatch.setattr(socket.socket, "bind", socket.socket.bind)
    with socket.socket() as refused:
        refused.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            refused.bind(("127.0.0.1", port))
    share(port)
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        door.close()
        assert not listens(port)
        server.listen()
        assert listens(port)
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    deadline = time.monotonic() + 5
    while listens(port) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not listens(port)
