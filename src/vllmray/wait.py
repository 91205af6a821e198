"""wait_until: the one place that waits, and the only one that sleeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from vllmray.errors import WaitTimeoutError
from vllmray.reporter import Step

T = TypeVar("T")


class Clock(Protocol):
    """Time for a wait; tests pass a fake whose sleep advances its own monotonic clock."""

    def monotonic(self) -> float:
        """Monotonic seconds."""

    def sleep(self, seconds: float) -> None:
        """Sleep for that many seconds."""


class SystemClock:
    """The system's clock."""

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Ready(Generic[T]):
    """The probe succeeded; `value` is what it found."""

    value: T


@dataclass(frozen=True, slots=True)
class NotReady:
    """The probe did not succeed yet; the observation is for people: "2 of 4 GPUs: 10.0.0.2 has not joined"."""

    observation: str


def wait_until(
    probe: Callable[[float], Ready[T] | NotReady],
    *,
    what: str,
    timeout: float,
    step: Step,
    poll_interval: float = 0.0,
    clock: Clock | None = None,
) -> T:
    """Call the probe until it is ready, and return what it found.

    Args:
        probe: gets the seconds that are left and must return within them; it may itself block for news, and then
            needs no poll_interval. It raises if waiting is pointless.
        what: the thing waited for, as a noun: "2 GPUs".
        timeout: seconds; one probe is made even when it is 0.
        step: told the bound at first, and each observation that differs from the one before.
        poll_interval: seconds between probes.
        clock: the time; the system's unless a test brings its own.

    Raises:
        WaitTimeoutError: the bound was reached; it names the last observation.
    """
    clock = clock or SystemClock()
    deadline = clock.monotonic() + timeout
    last = ""
    step.bound(timeout)
    while True:
        step.poll()
        outcome = probe(max(deadline - clock.monotonic(), 0.0))
        if isinstance(outcome, Ready):
            return outcome.value
        if outcome.observation != last:
            last = outcome.observation
            step.change(last)
        left = deadline - clock.monotonic()
        if left <= 0:
            raise WaitTimeoutError(f"timed out after {timeout:.0f} s waiting for {what}: {last}")
        clock.sleep(min(poll_interval, left))
