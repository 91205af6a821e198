"""Pulling an image over connections that break."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fake_host import FakeHost
from tests.unit.support import FakeClock, RecordingReporter
from vllmray.cluster.images.pull import PAUSES_S, ensure_image
from vllmray.errors import BrokenConnectionError, HostError
from vllmray.hosts.base import PullEvent
from vllmray.hosts.docker.errors import explain


class BreakingHost(FakeHost):
    """Breaks off in the middle of a layer, that many times."""

    def __init__(self, times: int, error: HostError) -> None:
        super().__init__(images=())
        self.left, self.error, self.pulls = times, error, 0
        self.registry["image:1"] = [PullEvent("aa", "Pull complete")]

    def pull(self, name: str) -> Iterator[PullEvent]:
        self.pulls += 1
        yield PullEvent("aa", "Downloading", 5, 10)
        if self.left:
            self.left -= 1
            raise self.error
        yield from super().pull(name)


def test_a_broken_connection_is_tried_again_after_longer_and_longer_pauses() -> None:
    host = BreakingHost(3, explain("host", "pull image:1", "unexpected EOF"))
    clock, reporter = FakeClock(), RecordingReporter()
    ensure_image(host, "image:1", reporter, clock)
    assert host.pulls == 4
    assert clock.now == sum(PAUSES_S[:3])
    assert "image image:1: unexpected EOF; trying again in 2 s" in reporter.lines
    assert reporter.lines[-1] == "image image:1: = pulled"


def test_a_connection_that_always_breaks_is_an_error_in_the_end() -> None:
    host = BreakingHost(99, explain("host", "pull image:1", "read tcp: connection reset by peer"))
    with pytest.raises(BrokenConnectionError):
        ensure_image(host, "image:1", RecordingReporter(), FakeClock())
    assert host.pulls == len(PAUSES_S) + 1


def test_what_no_second_try_could_mend_is_not_tried_again() -> None:
    host = BreakingHost(99, explain("host", "pull image:1", "manifest unknown"))
    with pytest.raises(HostError):
        ensure_image(host, "image:1", RecordingReporter(), FakeClock())
    assert host.pulls == 1


@pytest.mark.parametrize(
    ("text", "again"),
    [
        ("unexpected EOF", True),
        ("error pulling image configuration: Get https://registry/v2/: EOF", True),
        ("net/http: TLS handshake timeout", True),
        ("dial tcp 10.0.0.9:5000: i/o timeout", True),
        ("received unexpected HTTP status: 503 Service Unavailable", True),
        ("toomanyrequests: You have reached your pull rate limit", True),
        ("unauthorized: authentication required", False),
        ("manifest for image:1 not found: manifest unknown", False),
        ("write /var/lib/docker/tmp: no space left on device", False),
        ("No such image: image:500", False),
        ("dial tcp: lookup registry: no such host", False),
    ],
)
def test_only_what_may_work_the_next_time_counts_as_a_broken_connection(text: str, again: bool) -> None:
    assert isinstance(explain("host", "pull", text), BrokenConnectionError) is again
