from __future__ import annotations

import pytest

from tests.unit.support import FakeClock, RecordingStep
from vllmray.errors import WaitTimeoutError
from vllmray.wait import NotReady, Ready, wait_until


def test_a_ready_probe_is_asked_once_and_its_value_returned() -> None:
    clock = FakeClock()
    step = RecordingStep()
    assert wait_until(lambda left: Ready(7), what="seven", timeout=10, step=step, clock=clock) == 7
    assert clock.now == 0
    assert step.reporter.lines == ["step: up to 10 s"]


def test_each_probe_gets_the_seconds_that_are_left() -> None:
    clock = FakeClock()
    lefts: list[float] = []

    def probe(left: float) -> Ready[None] | NotReady:
        lefts.append(left)
        return Ready(None) if len(lefts) == 3 else NotReady("not yet")

    wait_until(probe, what="it", timeout=10, poll_interval=2, step=RecordingStep(), clock=clock)
    assert lefts == [10, 8, 6]


def test_only_changes_are_told() -> None:
    observations = iter(["0 of 2", "0 of 2", "1 of 2", "1 of 2"])
    step = RecordingStep()

    def probe(left: float) -> Ready[None] | NotReady:
        observation = next(observations, None)
        return NotReady(observation) if observation else Ready(None)

    wait_until(probe, what="it", timeout=10, poll_interval=1, step=step, clock=FakeClock())
    assert step.reporter.lines == ["step: up to 10 s", "step: 0 of 2", "step: 1 of 2"]


def test_the_bound_is_kept_to_the_second_and_the_error_says_what_was_seen_last() -> None:
    clock = FakeClock()
    with pytest.raises(WaitTimeoutError) as caught:
        wait_until(
            lambda left: NotReady("1 of 2 GPUs"),
            what="GPUs",
            timeout=5,
            poll_interval=2,
            step=RecordingStep(),
            clock=clock,
        )
    assert clock.now == 5
    assert caught.value.message == "timed out after 5 s waiting for GPUs: 1 of 2 GPUs"
    assert caught.value.exit_code == 5


def test_a_bound_of_zero_still_asks_once() -> None:
    assert wait_until(lambda left: Ready("yes"), what="it", timeout=0, step=RecordingStep(), clock=FakeClock()) == "yes"
    with pytest.raises(WaitTimeoutError):
        wait_until(lambda left: NotReady("no"), what="it", timeout=0, step=RecordingStep(), clock=FakeClock())


def test_what_cannot_heal_ends_the_wait_at_once() -> None:
    clock = FakeClock()

    def probe(left: float) -> Ready[None] | NotReady:
        raise RuntimeError("the container ended")

    with pytest.raises(RuntimeError, match="the container ended"):
        wait_until(probe, what="it", timeout=100, step=RecordingStep(), clock=clock)
    assert clock.now == 0
