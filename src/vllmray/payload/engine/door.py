"""Answers the endpoint's port for as long as the engine does not: 503, with Retry-After.

Standard library only; part of what runs in the engine's container. A client that sends a request while the model loads,
or after the engine died, gets an HTTP answer that says when to retry (RFC 9110, 15.6.4), not a refused connection.

VLLM binds its port long before it listens there. Both share it (SO_REUSEPORT; serve.py sets that on vLLM's side). Once
both listen the kernel distributes connections over them, so this one closes as soon as vLLM listens.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any

RETRY_AFTER_S = 10
"""The Retry-After that clients get. Loading takes a minute or more; a retry is cheap."""
SILENCE_S = 10.0
BODY = json.dumps(
    {"error": {"message": "the model is not being served yet: try again later", "type": "service_unavailable"}}
).encode()
MOST_READ = 16 * 1024**2


class Door:
    """A server on the endpoint's port, open while the engine does not listen there.

    Args:
        certificate: paths of chain and key where the endpoint speaks TLS.
    """

    def __init__(self, port: int, certificate: tuple[str, str] | None = None, address: str = "0.0.0.0") -> None:  # nosec B104 # as the engine itself
        self._at = (address, port)
        self._tls: ssl.SSLContext | None = None
        if certificate:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(*certificate)
        self._server: _Server | None = None

    def open(self) -> None:
        """Answer from now on; no effect when it is open already.

        Raises:
            OSError: another program has the port.
        """
        if self._server is None:
            self._server = _Server(self._at, self._tls)
            threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()

    def close(self) -> None:
        """Stop listening; requests that were accepted are still answered."""
        server, self._server = self._server, None
        if server:
            server.shutdown()
            server.take_the_rest()
            server.server_close()


class _Server(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, at: tuple[str, int], tls: ssl.SSLContext | None) -> None:
        self._tls = tls
        super().__init__(at, _Refusal)

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Runs in the connection's own thread, so that a slow handshake does not block others."""
        request.settimeout(SILENCE_S)
        with suppress(OSError):  # the client disconnected, or does not speak TLS
            if self._tls is None:
                super().finish_request(request, client_address)
                return
            with self._tls.wrap_socket(request, server_side=True) as wrapped:
                super().finish_request(wrapped, client_address)
                wrapped.unwrap()

    def take_the_rest(self) -> None:
        """Accept the pending connections: closing the socket would reset them (listen(2))."""
        self.socket.setblocking(False)  # noqa: FBT003  # the standard library's own
        with suppress(OSError):
            while True:
                request, client_address = self.socket.accept()
                request.setblocking(True)  # noqa: FBT003
                self.process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing: a client that disconnected is no error here."""


class _Refusal(BaseHTTPRequestHandler):
    """The same answer to every request; then the connection is closed, so that the next one reaches the engine."""

    protocol_version = "HTTP/1.1"
    timeout = SILENCE_S

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        self.close_connection = True
        if not self.raw_requestline or not self.parse_request():
            return
        self._read_body()
        self.send_response(503)
        self.send_header("Retry-After", str(RETRY_AFTER_S))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(BODY)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(BODY)

    def _read_body(self) -> None:
        """Read all of it: a connection closed with unread data is reset, and the answer lost (RFC 9112, 9.6)."""
        with suppress(ValueError):
            left = min(int(self.headers.get("Content-Length", 0)), MOST_READ)
            while left > 0 and (read := self.rfile.read(min(left, 65536))):
                left -= len(read)

    def version_string(self) -> str:
        return "vllmray"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the standard library's own
        """Log nothing: a waiting client retries often."""
