"""What a history makes of logs and of what a host saw; and why an engine ended."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from vllmray.cluster.observe.history import Row, Story, seen_by_host, told
from vllmray.cluster.observe.reasons import LONGEST, reason
from vllmray.hosts.host_events import HostAction, HostEvent
from vllmray.payload.journal import PREFIX, Entry, Kind, exit_words, line_of, parse

WRAPPED = "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed: {}"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("RuntimeError: CUDA error", "RuntimeError: CUDA error"),
        ("ray.exceptions.ActorDiedError: it died", "ray.exceptions.ActorDiedError: it died"),
        ("torch.OutOfMemoryError: 2 GiB", "torch.OutOfMemoryError: 2 GiB"),
        ("AssertionError", "AssertionError"),
        ("ray.exceptions.RayTaskError(ValueError): x", "ray.exceptions.RayTaskError(ValueError): x"),
        ("subprocess.TimeoutExpired: x", "subprocess.TimeoutExpired: x"),
        ("Fatal Python error: Segmentation fault", "Fatal Python error: Segmentation fault"),
        ("(EngineCore pid=123) ERROR 11-25 08:00:00 [core.py:1] ValueError: no", "ValueError: no"),
        ("(EngineCore_0 pid=1) (RayWorkerWrapper pid=2, ip=10.0.0.2) KeyError: 'x'", "KeyError: 'x'"),
        ("\x1b[36m(RayWorkerWrapper pid=2)\x1b[0m OSError: gone\r", "OSError: gone"),
        ("(EngineCore pid=1) WARNING 11-25 08:00:00 [x.py:1] ImportError: no flashinfer", None),
        ("(EngineCore pid=1) ERROR 11-25 08:00:00 [core.py:1]     raise ValueError('no')", None),
        ("    raise RuntimeError: x", None),
        ("INFO it says RuntimeError: x", None),
        ("Exception in thread Thread-1:", None),
        ("", None),
    ],
)
def test_a_line_of_an_exception_is_known_by_its_beginning(line: str, said: str | None) -> None:
    assert reason([line]) == said


def test_the_last_exception_is_the_reason_unless_it_only_says_that_another_is() -> None:
    assert reason(["ValueError: one", "x", "KeyError: two", "x"]) == "KeyError: two"
    assert reason(["ValueError: one", WRAPPED]) == "ValueError: one"
    assert reason([WRAPPED, "ValueError: one"]) == "ValueError: one"
    assert reason([WRAPPED]) is None
    assert reason(["nothing"]) is None


def test_a_reason_is_bounded() -> None:
    said = reason([f"ValueError: {'x' * 500}"])
    assert said is not None
    assert len(said) == LONGEST
    assert said.endswith("x…")


def test_a_line_of_the_journal_is_read_as_it_was_written_and_no_other_is() -> None:
    entry = Entry(12.5, "exited", "exit code 1")
    assert parse(line_of(entry)) == entry
    assert parse(f'{PREFIX}{{"at": 1, "kind": "made-up", "text": ""}}') is None
    assert parse(f"{PREFIX}{{") is None


@pytest.mark.parametrize(
    ("code", "words"),
    [(0, "exit code 0"), (3, "exit code 3"), (137, "exit code 137 (SIGKILL)"), (255, "exit code 255")],
)
def test_an_exit_code_is_a_signal_where_it_stands_for_one(code: int, words: str) -> None:
    assert exit_words(code) == words


def line(at: float, kind: Kind, text: str = "said") -> str:
    return line_of(Entry(at, kind, text))


def texts(*lines: str) -> list[str]:
    return [f"{row.kind}: {row.text}" for row in told("engine", lines)]


def test_a_death_has_the_reason_that_stands_since_the_row_before() -> None:
    assert texts("ValueError: old", line(1, "starting"), "KeyError: new", line(2, "died"), line(3, "died")) == [
        "starting: said",
        "died: said; KeyError: new",
        "died: said",
    ]


def test_news_of_other_nodes_do_not_hide_the_reason() -> None:
    rows = texts(line(1, "ready"), "ActorDiedError: gone", line(2, "lost"), line(3, "joined"), WRAPPED, line(4, "died"))
    assert rows[-1] == "died: said; ActorDiedError: gone"


def test_a_log_is_read_line_by_line_and_none_is_kept() -> None:
    """A row is there before the next line is read."""
    read: list[int] = []

    def lines() -> Iterator[str]:
        for number in range(3):
            read.append(number)
            yield line(number, "waiting")

    rows = told("engine", lines())
    assert read == []
    assert next(rows).at == 0
    assert read == [0]


def event(at: float, action: HostAction, **more: int) -> HostEvent:
    return HostEvent(at, "engine", action, {}, **more)


def test_what_a_host_saw_is_told_in_words_and_a_start_after_an_end_is_a_restart() -> None:
    events = [
        event(1, "start"),
        event(2, "oom"),
        event(3, "kill", signal=9),
        event(4, "die", exit_code=137),
        event(5, "start"),
        event(6, "pause"),
        event(7, "unpause"),
        event(8, "stop"),
        event(9, "restart"),
        event(10, "kill", signal=99),
    ]
    assert [f"{row.kind}: {row.text}" for row in Story().add(seen_by_host(events))] == [
        "started: the container",
        "oom: a process was OOM-killed by the kernel",
        "killed: signal 9 (SIGKILL)",
        "exited: exit code 137 (SIGKILL)",
        "restarted: started again",
        "paused: by a command",
        "unpaused: by a command",
        "stopped: by a command",
        "restarted: by a command",
        "killed: signal 99",
    ]


def row(at: float, kind: str, where: str = "engine") -> Row:
    return Row(at, where, kind, "said")


@pytest.mark.parametrize("kind", ["lost", "died", "stalled", "node-ended", "exited", "oom"])
def test_a_recovery_is_counted_from_the_first_bad_thing_since_the_last_was_over(kind: str) -> None:
    rows = [row(10, kind), row(20, "died"), row(70, "ready"), row(80, "ready"), row(90, kind), row(95, "ready")]
    assert [told.text for told in Story().add(rows) if told.kind == "ready"] == [
        "said; recovered after 60 s",
        "said",
        "said; recovered after 5 s",
    ]


def test_nothing_else_has_to_be_recovered_from() -> None:
    rows = [row(1, kind) for kind in ("waiting", "joined", "killed", "started", "restarted", "stopped", "paused")]
    assert Story().add([*rows, row(9, "ready")])[-1].text == "said"


def test_rows_are_in_order_of_time_and_what_came_before_counts_in_later_calls() -> None:
    story = Story()
    assert [told.at for told in story.add([row(3, "waiting"), row(1, "lost"), row(2, "waiting")])] == [1, 2, 3]
    assert story.add([row(11, "ready")])[0].text == "said; recovered after 10 s"
