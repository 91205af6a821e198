"""One stream to several readers."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping

import pytest

from vllmray.hosts.fanout import DEPTH, SourceError, fan_out

CHUNKS = [bytes([number]) * 100 for number in range(50)]


def nothing(_: Mapping[str, int]) -> None:
    pass


class Reader:
    """Keeps what it was given."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.whole = False

    def __call__(self, chunks: Iterator[bytes]) -> None:
        for chunk in chunks:
            self.got.append(chunk)
        self.whole = True


def test_every_reader_gets_the_whole_stream_and_the_source_is_read_once() -> None:
    readers = {"a": Reader(), "b": Reader(), "c": Reader()}
    read = 0

    def source() -> Iterator[bytes]:
        nonlocal read
        for chunk in CHUNKS:
            read += 1
            yield chunk

    assert fan_out(source(), readers, nothing) == {"a": None, "b": None, "c": None}
    assert [reader.got for reader in readers.values()] == [CHUNKS] * 3
    assert read == len(CHUNKS)


def test_no_more_than_a_few_chunks_wait_for_a_slow_reader() -> None:
    go_on = threading.Event()
    given = 0
    ahead = []

    def source() -> Iterator[bytes]:
        nonlocal given
        for chunk in CHUNKS:
            given += 1
            if given > DEPTH + 1:  # one is in the reader's hands
                go_on.set()
            yield chunk

    def slow(chunks: Iterator[bytes]) -> None:
        for taken, _ in enumerate(chunks, 1):
            go_on.wait(10)
            ahead.append(given - taken)

    assert fan_out(source(), {"slow": slow, "fast": Reader()}, nothing) == {"slow": None, "fast": None}
    assert go_on.is_set()
    assert max(ahead) <= DEPTH + 2


def test_a_reader_that_fails_is_left_behind_and_the_others_get_all() -> None:
    class FullError(Exception):
        pass

    def full(chunks: Iterator[bytes]) -> None:
        next(chunks)
        raise FullError

    good = Reader()
    outcomes = fan_out(iter(CHUNKS), {"full": full, "good": good}, nothing)
    assert isinstance(outcomes["full"], FullError)
    assert outcomes["good"] is None
    assert good.got == CHUNKS


def test_when_every_reader_has_failed_the_source_is_read_no_further() -> None:
    def full(_: Iterator[bytes]) -> None:
        raise ValueError

    source = iter(range(10**9))
    outcomes = fan_out((b"x" for _ in source), {"full": full}, nothing)
    assert isinstance(outcomes["full"], ValueError)
    assert next(source) < 10**6


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_when_the_source_breaks_off_no_reader_takes_the_part_for_the_whole(error: type[BaseException]) -> None:
    seen: list[BaseException] = []
    reader = Reader()

    def source() -> Iterator[bytes]:
        yield CHUNKS[0]
        raise error

    def watched(chunks: Iterator[bytes]) -> None:
        try:
            reader(chunks)
        except SourceError as broken:
            seen.append(broken)
            raise

    with pytest.raises(error):
        fan_out(source(), {"a": watched, "b": watched}, nothing)
    assert len(seen) == 2
    assert not reader.whole


def test_progress_is_told_the_bytes_that_each_has_taken() -> None:
    said: list[Mapping[str, int]] = []
    fan_out(iter(CHUNKS), {"a": Reader(), "b": Reader()}, said.append)
    total = sum(map(len, CHUNKS))
    assert said[-1] == {"a": total, "b": total}
    assert [one["a"] for one in said] == sorted(one["a"] for one in said)
