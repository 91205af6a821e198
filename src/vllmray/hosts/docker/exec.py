"""A process in a container through the Docker SDK's client, with its standard input held open.

The open standard input is what ends the process: the Engine API has no call to end an exec, and goes on reading its
output when the client is gone, but it closes the standard input of an exec whose connection ends (moby 20.10,
daemon/exec.go, CloseStdin).
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from io import BufferedReader
from typing import TYPE_CHECKING, Any

from vllmray.hosts.lines import Lines

if TYPE_CHECKING:
    from docker import APIClient

_STDOUT_AND_STDERR = (1, 2)


class DockerExec:
    """An Exec; a thread of its own reads the stream, so that a reader can wait with a bound.

    Args:
        telling: turns whatever the SDK raises into a HostError that says what was being done.
    """

    def __init__(
        self,
        api: APIClient,
        container: str,
        argv: tuple[str, ...],
        telling: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        self._api = api
        self._telling = telling
        self._program = f"{argv[0]} in {container}"
        self._id: str = api.exec_create(container, list(argv), stdin=True)["Id"]
        hijacked: Any = api.exec_start(self._id, socket=True)
        # The response holds the connection, so it is kept and closed with it.
        self._held: tuple[Any, ...] = (hijacked._response, hijacked)
        # Bytes that came directly after the response's header are in this buffer; the SDK's own readers use the bare
        # socket and lose them (docker 7.1, api/client.py, _get_raw_response_socket).
        self._stream: BufferedReader = hijacked._response.raw._fp.fp
        self._connection: socket.socket = getattr(hijacked, "_sock", hijacked)
        self._connection.settimeout(None)
        self._lines = Lines()
        threading.Thread(target=self._pump, daemon=True).start()

    def _pump(self) -> None:
        rest = b""
        with suppress(OSError, ValueError):  # ValueError: close() closed the socket under us
            for stream, chunk in _frames(self._stream):
                if stream in _STDOUT_AND_STDERR:
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        self._lines.put(line)
        if rest:
            self._lines.put(rest)
        self._hang_up()
        self._release()
        self._lines.end()

    def read_line(self, timeout: float) -> str | None:
        return self._lines.read(timeout)

    def close(self) -> None:
        self._hang_up()

    def _hang_up(self) -> None:
        """End the connection, which wakes the reading thread; only that thread then closes what it reads from."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def _release(self) -> None:
        for closable in self._held:
            with suppress(OSError, ValueError):
                closable.close()  # ValueError and BrokenPipeError: the other end closed first

    def exit_code(self) -> int | None:
        with self._telling(f"read the exit code of {self._program}"):
            found = self._api.exec_inspect(self._id)
        return None if found["Running"] or found["ExitCode"] is None else int(found["ExitCode"])


def _frames(stream: BufferedReader) -> Iterator[tuple[int, bytes]]:
    """Number and content of each frame, as the Engine API's attach call describes them, until the stream ends."""
    header = struct.Struct(">BxxxL")
    while len(begin := stream.read(header.size)) == header.size:
        number, length = header.unpack(begin)
        yield number, stream.read(length)
