"""A process in a container through the Docker SDK's client, with its standard input held open.

The open standard input is what ends the process: the Engine API has no call to end an exec, and goes on reading its
output when the client is gone, but it closes the standard input of an exec whose connection ends (moby 20.10,
daemon/exec.go, CloseStdin).
"""

from __future__ import annotations

import queue
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from docker import APIClient

_STDOUT_AND_STDERR = (1, 2)
_END = None


class DockerExec:
    """An Exec; a thread of its own reads the stream, so that a reader can wait with a bound."""

    def __init__(self, api: APIClient, container: str, argv: tuple[str, ...]) -> None:
        self._api = api
        self._id: str = api.exec_create(container, list(argv), stdin=True)["Id"]
        self._socket: Any = api.exec_start(self._id, socket=True)
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._ended = False
        threading.Thread(target=self._pump, daemon=True).start()

    def _pump(self) -> None:
        from docker.utils.socket import frames_iter

        rest = b""
        with suppress(OSError, ValueError):  # ValueError: close() closed the socket under us
            for stream, chunk in frames_iter(self._socket, tty=False):  # type: ignore[no-untyped-call]
                if stream in _STDOUT_AND_STDERR:
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        self._lines.put(line.decode(errors="replace"))
        if rest:
            self._lines.put(rest.decode(errors="replace"))
        self._hang_up()
        self._release()
        self._lines.put(_END)

    def read_line(self, timeout: float) -> str | None:
        if self._ended:
            raise EOFError
        try:
            line = self._lines.get(timeout=max(timeout, 0.0)) if timeout > 0 else self._lines.get_nowait()
        except queue.Empty:
            return None
        if line is _END:
            self._ended = True
            raise EOFError
        return line

    def close(self) -> None:
        self._hang_up()

    def _hang_up(self) -> None:
        """End the connection, which wakes the reading thread; only that thread then closes what it reads from."""
        # AttributeError: the reading thread has let go of the socket already.
        with suppress(OSError, ValueError, AttributeError):
            getattr(self._socket, "_sock", self._socket).shutdown(socket.SHUT_RDWR)

    def _release(self) -> None:
        # The SDK hangs the HTTP response, which holds the connection, on the socket to keep it alive.
        held: tuple[Any, ...] = (getattr(self._socket, "_response", None), self._socket)
        for closable in held:
            with suppress(OSError, ValueError, AttributeError):
                closable.close()  # ValueError and BrokenPipeError: the other end went first

    def exit_code(self) -> int | None:
        found = self._api.exec_inspect(self._id)
        return None if found["Running"] or found["ExitCode"] is None else int(found["ExitCode"])
