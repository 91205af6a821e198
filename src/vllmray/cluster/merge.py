"""Several streams of lines or rows as one: by time where all is there, else as they come."""

from __future__ import annotations

import heapq
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

T = TypeVar("T")

BATCH_S = 0.3
"""What comes within this time is put into order before it is shown."""


def by_time(streams: Iterable[Iterable[T]], time_of: Callable[[T], float]) -> Iterator[T]:
    """Streams that end, each in order, as one in order; of equal times the earlier stream's comes first."""
    return heapq.merge(*streams, key=time_of)


class Live:
    """Streams that go on, each read by a thread of its own, as one.

    A stream that fails is told by a call of `lost`, with its name and the error; the others go on.
    """

    def __init__(self, lost: Callable[[str, Exception], object]) -> None:
        self._lost = lost

    def merged(self, streams: Mapping[str, Iterable[T]], time_of: Callable[[T], float]) -> Iterator[T]:
        """What comes, in the order of the times as far as it came together; ends when all streams have."""
        found: queue.SimpleQueue[T | _End] = queue.SimpleQueue()

        def read(name: str, stream: Iterable[T]) -> None:
            error: Exception | None = None
            try:
                for item in stream:
                    found.put(item)
            except Exception as failure:  # noqa: BLE001  # whatever it is, it is told of that stream
                error = failure
            found.put(_End(name, error))

        for name, stream in streams.items():
            threading.Thread(target=read, args=(name, stream), daemon=True).start()
        running = len(streams)
        while running:
            batch: list[T] = []
            deadline: float | None = None
            while running and (deadline is None or time.monotonic() < deadline):
                try:
                    item = found.get(timeout=BATCH_S)
                except queue.Empty:
                    break
                if isinstance(item, _End):
                    running -= 1
                    if item.error:
                        self._lost(item.name, item.error)
                    continue
                batch.append(item)
                deadline = deadline or time.monotonic() + BATCH_S
            yield from sorted(batch, key=time_of)


class _End:
    def __init__(self, name: str, error: Exception | None) -> None:
        self.name, self.error = name, error
