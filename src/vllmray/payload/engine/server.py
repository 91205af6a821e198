"""The server's process, serve.py, as its parent launch.py controls it.

Standard library only; part of what runs in the engine's container.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from vllmray.payload.journal import signal_name

END_S = 10.0
"""How long a server may take to exit after SIGTERM; vLLM needs half a second."""


def stand_in(node_id: str) -> subprocess.Popen[bytes]:
    """A dummy process with the command line of that Ray node's raylet; it runs until its standard input is closed.

    Ray's driver finds the raylet of its node by the command lines of the processes that it sees (ray 2.60,
    python/ray/_private/services.py, _find_address_from_flag: a first word with "raylet" in it, and --node_id=). The
    head's raylet is in another container, so this process stands in for it: it prints one line when it runs, and waits
    for the end of its standard input. Where the real raylet is visible too, both have the same node id.
    """
    argv = ["raylet", "-c", "echo runs; read _", f"--node_id={node_id}"]
    process = subprocess.Popen(argv, executable="/bin/sh", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    # Popen returns before /proc shows the new command line: 1122 of 3000 had none yet on two busy cores.
    process.stdout.readline()  # type: ignore[union-attr]  # Popen was given a pipe
    return process


class Server:
    """One server process; it begins to import vLLM at once.

    Args:
        changed: set whenever imported, listening or has_ended changed.
    """

    def __init__(self, vllm_args: list[str], port: int, changed: threading.Event) -> None:
        self._changed = changed
        self.imported = False
        self.listening = False
        self.has_ended = False
        reader, writer = os.pipe()
        script = Path(__file__).with_name("serve.py")
        argv = [sys.executable, str(script), "--tell", str(writer), "--port", str(port), "--", *vllm_args]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, pass_fds=[writer])
        self._stand_in: subprocess.Popen[bytes] | None = None
        os.close(writer)
        threading.Thread(target=self._listen, args=(reader,), daemon=True).start()
        threading.Thread(target=self._wait, daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _listen(self, reader: int) -> None:
        with os.fdopen(reader) as words:
            for word in words:
                self.imported |= word.strip() == "imported"
                self.listening |= word.strip() == "listening"
                self._changed.set()

    def _wait(self) -> None:
        self._process.wait()
        self.has_ended = True
        self._changed.set()

    @property
    def exit_words(self) -> str:
        """How it exited: "exit code N", or the name of a signal."""
        code = self._process.returncode
        if code is None or code >= 0:
            return f"exit code {code}"
        return signal_name(-code) or f"signal {-code}"

    def go(self, head: str | None) -> None:
        """Tell it to serve.

        Args:
            head: id of the Ray node to connect to; None where Ray reported none.
        """
        if head:
            self._stand_in = stand_in(head)
        with suppress(BrokenPipeError):
            os.write(self._process.stdin.fileno(), b"go\n")  # type: ignore[union-attr]  # Popen was given a pipe

    def end(self, *, first: Callable[[int], object] | None = None) -> None:
        """End it, unless it has exited.

        Args:
            first: called with its process id instead of sending SIGTERM, to kill the child that hangs: the server then
                answers its clients and exits by itself.
        """
        if not self.has_ended:
            if first:
                first(self.pid)
            else:
                self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(END_S)
        if not self.has_ended:
            self._process.kill()
        self._process.wait()
        with suppress(BrokenPipeError):
            self._process.stdin.close()  # type: ignore[union-attr]
        if self._stand_in:
            self._stand_in.communicate()
