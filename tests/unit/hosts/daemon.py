"""A daemon of which every answer, and where it breaks off, is decided byte by byte."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import suppress
from typing import BinaryIO

CHUNKED = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
JSON = CHUNKED.replace(b"{kind}", b"application/json")
RAW = CHUNKED.replace(b"{kind}", b"application/octet-stream")
HALF_A_MESSAGE = b'{"status": "Downl'
WHOLE_MESSAGE = b'{"status": "Downloading", "id": "a"}\n'
UPGRADED = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"


def whole(body: object, status: str = "200 OK") -> bytes:
    """An answer that comes to its end."""
    content = json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


def chunk(content: bytes) -> bytes:
    return f"{len(content):x}\r\n".encode() + content + b"\r\n"


def in_a_chunk(content: bytes) -> bytes:
    """The beginning of a chunk of which the end never comes."""
    return f"{len(content) + 1000:x}\r\n".encode() + content


LAST = b"0\r\n\r\n"
CREATED = whole({"Id": "c" * 64}, "201 Created")
LOOKED_AT = whole({"Config": {"User": "someone", "Tty": False}})


def read_request(requests: BinaryIO) -> str:
    """The path; read whole, since a connection that is closed over unread bytes is reset."""
    path, length, chunked = requests.readline().decode().split(" ")[1], 0, False
    while line := requests.readline().strip().lower():
        if line.startswith(b"content-length:"):
            length = int(line.split(b":")[1])
        chunked = chunked or line == b"transfer-encoding: chunked"
    requests.read(length)
    while chunked and (size := int(requests.readline(), 16)):
        requests.read(size + 2)
    if chunked:
        requests.readline()
    return path


class Daemon:
    """Answers what it is told to, each path's first match, and hangs up after it."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes] = {}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection, suppress(OSError, ValueError, IndexError):
                    path = read_request(connection.makefile("rb"))
                    found = next((said for part, said in self.answers.items() if part in path), b"")
                    connection.sendall(found)

    def close(self) -> None:
        self._listener.close()
