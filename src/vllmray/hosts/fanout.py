"""One stream to several readers at once, read from its source once and never held whole."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

Sink = Callable[[Iterator[bytes]], None]
DEPTH = 8
"""Chunks that a reader may lag behind; the slowest sets the pace."""


class SourceError(Exception):
    """Raised in a reader's stream when the source breaks off."""


class _Channel:
    """Chunks on their way to one reader."""

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._ended = self._broken = self._left = False
        self.taken = 0
        """Bytes."""

    def put(self, chunk: bytes) -> bool:
        """Waits for room; False when the reader has left."""
        with self._changed:
            self._changed.wait_for(lambda: self._left or len(self._chunks) < DEPTH)
            if not self._left:
                self._chunks.append(chunk)
                self._changed.notify_all()
            return not self._left

    def end(self, *, broken: bool) -> None:
        """No more will come."""
        with self._changed:
            self._ended, self._broken = True, broken
            self._changed.notify_all()

    def leave(self) -> None:
        """The reader reads no more."""
        with self._changed:
            self._left = True
            self._chunks.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[bytes]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._chunks or self._ended)
                if self._broken:
                    raise SourceError
                if not self._chunks:
                    return
                chunk = self._chunks.popleft()
                self._changed.notify_all()
            yield chunk
            self.taken += len(chunk)


def fan_out(
    source: Iterator[bytes], sinks: Mapping[str, Sink], progress: Callable[[Mapping[str, int]], None]
) -> dict[str, Exception | None]:
    """Give every sink the whole stream, each in a thread of its own; returns how each ended.

    A sink that fails is dropped and the others go on. When the source fails, or this call is interrupted, every sink's
    stream ends with SourceError, so that none mistakes a part for the whole.

    Args:
        progress: called with the bytes that each sink has taken, after each chunk and now and then until all are done.

    Raises:
        Exception: the source's own.
    """
    channels = {name: _Channel() for name in sinks}
    outcomes: dict[str, Exception | None] = {}

    def run(name: str) -> None:
        try:
            sinks[name](iter(channels[name]))
            outcomes[name] = None
        except Exception as error:  # noqa: BLE001  # whatever it is, it is that sink's outcome
            outcomes[name] = error
        finally:
            channels[name].leave()

    threads = [threading.Thread(target=run, args=(name,), daemon=True) for name in sinks]
    for thread in threads:
        thread.start()
    whole = False
    try:
        for chunk in source:
            taken = [channel.put(chunk) for channel in channels.values()]
            if not any(taken):
                break
            progress({name: channel.taken for name, channel in channels.items()})
        whole = True
    finally:
        for channel in channels.values():
            channel.end(broken=not whole)
        for thread in threads:
            while whole and thread.is_alive():
                thread.join(timeout=1)
                progress({name: channel.taken for name, channel in channels.items()})
            with suppress(KeyboardInterrupt):
                thread.join(timeout=10)
    return outcomes
