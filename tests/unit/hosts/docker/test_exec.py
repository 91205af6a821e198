"""A daemon of one answer: what the network did to the bytes is decided here, byte by byte."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO

import pytest
from docker import APIClient

from vllmray.hosts.docker.exec import DockerExec
from vllmray.hosts.docker.progress import telling

TIMEOUT = 1
SILENCE = b""
UPGRADED = (
    b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nContent-Type: application/vnd.docker.raw-stream\r\n"
    b"Upgrade: tcp\r\n\r\n"
)
CREATED = b'HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{"Id": "e"}'


def frame(content: bytes, stream: int = 1) -> bytes:
    """As the Engine API's attach call sends it: stream, three zeros, the length, the content."""
    return struct.pack(">BxxxL", stream, len(content)) + content


def read_request(requests: BinaryIO) -> None:
    """Whole: a connection that is closed over unread bytes is reset, and what was sent on it may be lost."""
    length = 0
    while line := requests.readline().strip():
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    requests.read(length)


Daemon = Callable[[list[bytes]], APIClient]


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(pieces: list[bytes]) -> None:
        """Each piece is sent by itself."""
        connection, _ = listener.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            requests = connection.makefile("rb")
            read_request(requests)
            connection.sendall(CREATED)
            read_request(requests)
            for piece in pieces:
                time.sleep(2 * TIMEOUT if piece is SILENCE else 0)
                connection.sendall(piece)

    def start(pieces: list[bytes]) -> APIClient:
        threading.Thread(target=answer, args=(pieces,), daemon=True).start()
        return APIClient(base_url=f"tcp://127.0.0.1:{listener.getsockname()[1]}", version="1.41", timeout=TIMEOUT)

    yield start
    listener.close()


@pytest.mark.parametrize(
    "pieces",
    [
        [UPGRADED + frame(b"one\ntw") + frame(b"o\n") + frame(b"three", stream=2)],
        [UPGRADED + frame(b"one\ntw")[:5], frame(b"one\ntw")[5:] + frame(b"o\nthree")],
        [UPGRADED, frame(b"one\ntwo\nthree")],
    ],
    ids=["output right behind the answer's header", "a frame cut anywhere", "output on its own"],
)
def test_no_output_is_lost_wherever_the_network_cuts_it(daemon: Daemon, pieces: list[bytes]) -> None:
    running = DockerExec(daemon(pieces), "container", ("true",), lambda what: telling(what, "host"))
    assert [running.read_line(10) for _ in range(3)] == ["one", "two", "three"]
    with pytest.raises(EOFError):
        running.read_line(10)


def test_a_silence_longer_than_the_clients_timeout_is_not_the_end(daemon: Daemon) -> None:
    running = DockerExec(
        daemon([UPGRADED, SILENCE, frame(b"late\n")]), "container", ("true",), lambda what: telling(what, "host")
    )
    assert running.read_line(10) == "late"
