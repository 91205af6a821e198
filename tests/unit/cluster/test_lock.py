"""One command at a time: who waits sees for whom, goes on when it is free, and does not wait for ever."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.fake_host import FakeHost
from tests.unit.support import FakeClock, RecordingReporter
from vllmray.cluster.lock import WAIT_S, Holder, Turn, in_words, lock_name
from vllmray.cluster.spec.labels import LOCK, LOCK_HOLDER, LOCK_SINCE
from vllmray.errors import ClusterStateError, HeldError

ME = Holder("me@here", "vllmray down", 1)
OTHER = Holder("root@desk", "vllmray up", 4711)


def turn(host: FakeHost, holder: Holder, reporter: RecordingReporter | None = None, cluster: str = "lab") -> Turn:
    return Turn(host, cluster, image="image:1", holder=holder, reporter=reporter or RecordingReporter())


class Releasing(FakeClock):
    """Another lets go when the time has come."""

    def __init__(self, other: Turn, at: float) -> None:
        super().__init__()
        self.other = other
        self.at = at

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        if self.now >= self.at:
            self.other.end()


def test_a_free_turn_is_taken_without_a_word_and_given_back() -> None:
    host, reporter = FakeHost(), RecordingReporter()
    with turn(host, ME, reporter):
        labels = host.locks["vllmray-lab-lock"].labels
        assert (labels[LOCK], labels[LOCK_HOLDER]) == ("lab", "me@here (vllmray down, process 1)")
        assert datetime.now(UTC) - datetime.fromisoformat(labels[LOCK_SINCE]) < timedelta(seconds=5)
    assert host.locks == {}
    assert reporter.lines == []


def test_it_is_given_back_when_what_was_done_in_it_fails() -> None:
    host = FakeHost()
    with pytest.raises(ZeroDivisionError), turn(host, ME):
        raise ZeroDivisionError
    assert host.locks == {}


def test_the_next_waits_sees_for_whom_and_goes_on_when_it_is_free() -> None:
    host, reporter = FakeHost(), RecordingReporter()
    other, mine = turn(host, OTHER), turn(host, ME, reporter)
    other.begin()
    since = datetime.fromisoformat(host.locks[lock_name("lab")].labels[LOCK_SINCE]).astimezone()
    mine.begin(clock=Releasing(other, 7))
    assert reporter.lines == [
        "cluster lab: up to 120 s",
        f"cluster lab: root@desk (vllmray up, process 4711) has been changing it since {since:%H:%M:%S}",
        "cluster lab: = free",
    ]
    assert host.locks[lock_name("lab")].labels[LOCK_HOLDER].startswith("me@here")
    mine.end()
    assert host.locks == {}


def test_a_wait_that_is_too_long_is_an_error_that_names_the_holder() -> None:
    host, clock = FakeHost(), FakeClock()
    other = turn(host, OTHER)
    other.begin()
    with pytest.raises(ClusterStateError, match=r"root@desk \(vllmray up, process 4711\) .* since \d\d:") as caught:
        turn(host, ME).begin(clock=clock)
    assert clock.now == pytest.approx(WAIT_S)
    assert "vllmray down --force --cluster lab" in (caught.value.hint or "")
    assert host.locks[lock_name("lab")].labels[LOCK_HOLDER].startswith("root@desk")


def test_another_cluster_is_no_reason_to_wait() -> None:
    host = FakeHost()
    with turn(host, OTHER), turn(host, ME, cluster="other"):
        assert len(host.locks) == 2


def test_a_turn_that_was_ended_in_between_is_waited_for_again_and_one_that_was_not_is_kept() -> None:
    host = FakeHost()
    with turn(host, ME) as mine:
        mine.begin()
        assert host.asked_for_locks == ["taken vllmray-lab-lock"]
        mine.end()
        assert host.locks == {}
        with mine.briefly():
            assert len(host.locks) == 1
        assert host.locks == {}
        mine.begin()
        assert len(host.locks) == 1
    assert host.locks == {}


def test_a_brief_turn_does_not_wait() -> None:
    host = FakeHost()
    with turn(host, OTHER), pytest.raises(HeldError), turn(host, ME).briefly():
        pass


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({}, "another command is changing it"),
        ({LOCK_HOLDER: "a@b", LOCK_SINCE: "no time"}, "a@b is changing it"),
        ({LOCK_HOLDER: "a@b", LOCK_SINCE: "2026-01-02T12:00:00"}, "a@b has been changing it since 2026-01-02 12:00:00"),
    ],
)
def test_what_a_lock_says_is_put_in_words(labels: dict[str, str], words: str) -> None:
    assert in_words(HeldError("it is taken", labels=labels)) == words
