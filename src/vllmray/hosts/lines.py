"""A queue of lines, from a thread that reads them to one that waits with a timeout."""

from __future__ import annotations

import queue


class Lines:
    """Written by one thread, read by another."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._ended = False

    def put(self, line: bytes) -> None:
        """A line without its end."""
        self._queue.put(line.decode(errors="replace"))

    def end(self) -> None:
        """There will be no more."""
        self._queue.put(None)

    def read(self, timeout: float) -> str | None:
        """The next line; None when none came within timeout seconds. Raises EOFError after the last."""
        if self._ended:
            raise EOFError
        try:
            line = self._queue.get(timeout=timeout) if timeout > 0 else self._queue.get_nowait()
        except queue.Empty:
            return None
        if line is None:
            self._ended = True
            raise EOFError
        return line
