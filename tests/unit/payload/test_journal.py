"""Lines of what happened, as they are written in containers and read outside."""

from __future__ import annotations

import io
import time

import pytest

from vllmray.payload.journal import PREFIX, Entry, line_of, parse, tell


@pytest.mark.parametrize(
    "text", ["10.0.0.2, 1 GPU", "", 'a "quoted" \\ word', "two\nlines", "größer → 10", "x" * 10_000]
)
def test_a_line_comes_back_as_it_was_and_is_one_line(text: str) -> None:
    entry = Entry(1795596013.878, "lost", text)
    assert "\n" not in line_of(entry)
    assert parse(line_of(entry)) == entry


def test_an_entry_is_written_whole_with_the_time_of_now() -> None:
    stream = io.StringIO()
    tell("ready", "the engine answered", to=stream)
    written = stream.getvalue()
    assert written.endswith("\n")
    entry = parse(written.rstrip("\n"))
    assert entry is not None
    assert (entry.kind, entry.text) == ("ready", "the engine answered")
    assert abs(entry.at - time.time()) < 5


@pytest.mark.parametrize(
    "line",
    [
        "",
        "INFO: 10.0.0.1 - GET /health",
        PREFIX,
        PREFIX + "{}",
        PREFIX + "[1]",
        PREFIX + '{"at": "x", "kind": "lost", "text": ""}',
        PREFIX + '{"at": 1, "kind": "unheard-of", "text": ""}',
        PREFIX + '{"at": 1, "kind": "lost"',
        " " + PREFIX + '{"at": 1, "kind": "lost", "text": ""}',
    ],
)
def test_any_other_line_is_none(line: str) -> None:
    assert parse(line) is None
