"""A process next to a node's others, with its environment and its standard input held open."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from vllmray.hosts.lines import Lines


class NativeExec:
    """An Exec; a thread of its own reads the output, so that a reader can wait with a bound."""

    def __init__(self, argv: tuple[str, ...], env: Mapping[str, str], folder: Path) -> None:
        self._process = subprocess.Popen(
            argv,
            env=dict(env),
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C at the terminal is not for it
        )
        self._lines = Lines()
        threading.Thread(target=self._pump, daemon=True).start()

    def _pump(self) -> None:
        stream = self._process.stdout
        if stream is not None:
            with suppress(ValueError), stream:  # ValueError: closed under us
                for line in stream:
                    self._lines.put(line.rstrip(b"\n"))
        self._process.wait()
        self.close()
        self._lines.end()

    def read_line(self, timeout: float) -> str | None:
        return self._lines.read(timeout)

    def close(self) -> None:
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()

    def exit_code(self) -> int | None:
        return self._process.returncode
