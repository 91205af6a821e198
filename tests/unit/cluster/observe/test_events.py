"""`events` of a host in memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from tests.fake_host import FakeHost
from tests.unit.support import FakeClock, RecordingReporter, config, good_host
from vllmray.cluster.observe.events import LOOK_BACK_S, follow, history
from vllmray.cluster.observe.history import Row
from vllmray.cluster.run import UpOptions
from vllmray.cluster.up import up_head
from vllmray.errors import ClusterStateError
from vllmray.hosts.base import ContainerSpec
from vllmray.hosts.host_events import HostAction, HostEvent
from vllmray.payload.journal import Entry, Kind, line_of

NIGHT = 1_800_000_000.0


def with_head() -> FakeHost:
    """A host with head and engine, of which nothing is told yet."""
    host = good_host()
    up_head(host, config(), UpOptions(wait=False), RecordingReporter())
    host.happened.clear()
    return host


def says(host: FakeHost, role: str, at: float, kind: Kind, text: str = "said") -> None:
    host.named(f"vllmray-{role}").log.append(line_of(Entry(NIGHT + at, kind, text)))


def sees(host: FakeHost, role: str, at: float, action: HostAction, **more: int) -> None:
    name = f"vllmray-{role}"
    labels = {"io.vllmray.cluster": "vllmray", "io.vllmray.role": role}
    host.happened.append(HostEvent(NIGHT + at, name, action, labels, **more))


def lines(rows: list[Row]) -> list[str]:
    return [f"{row.at - NIGHT:g} {row.where} {row.kind}: {row.text}" for row in rows]


def an_incident(host: FakeHost) -> None:
    says(host, "engine", 0, "ready")
    says(host, "head", 5, "node-ended", "Ray exited with exit code 1")
    host.named("vllmray-engine").log.append("(EngineCore pid=9) ERROR 11-25 08:00:00 [core.py:1] RuntimeError: gone")
    says(host, "engine", 7, "died", "the vLLM server exited unexpectedly")
    says(host, "engine", 65, "ready")
    sees(host, "head", 6, "die", exit_code=1)
    sees(host, "head", 6.5, "start")
    sees(host, "probe", 6.6, "die", exit_code=0)


def test_logs_and_what_the_host_saw_are_one_history_in_order_of_time() -> None:
    host = with_head()
    an_incident(host)
    assert lines(history(host, "vllmray", since=None)) == [
        "0 vllmray-engine ready: said",
        "5 vllmray-head node-ended: Ray exited with exit code 1",
        "6 vllmray-head exited: exit code 1",
        "6.5 vllmray-head restarted: started again",
        "7 vllmray-engine died: the vLLM server exited unexpectedly; RuntimeError: gone",
        "65 vllmray-engine ready: said; recovered after 60 s",
    ]


def test_only_what_is_not_older_is_told_and_an_incident_still_has_its_beginning() -> None:
    host = with_head()
    an_incident(host)
    assert lines(history(host, "vllmray", since=NIGHT + 60)) == ["65 vllmray-engine ready: said; recovered after 60 s"]
    assert history(host, "vllmray", since=NIGHT + 66) == []


def test_the_host_is_asked_for_what_is_needed_and_no_more() -> None:
    asked: list[float | None] = []

    class Asked(FakeHost):
        def logs(
            self,
            container: str,
            *,
            follow: bool = False,
            tail: int | None = None,
            since: float | None = None,
            stamped: bool = False,
        ) -> itertools.chain[str]:
            asked.append(since)
            return itertools.chain(super().logs(container, follow=follow, tail=tail, since=since))

    host = Asked()
    labels = {"io.vllmray.cluster": "vllmray", "io.vllmray.role": "worker"}
    host.create_and_start(ContainerSpec(name="vllmray-worker", image="image:1", argv=("true",), labels=labels))
    history(host, "vllmray", since=NIGHT)
    history(host, "vllmray", since=None)
    assert asked == [NIGHT - LOOK_BACK_S, None]


def test_a_cluster_that_was_taken_down_is_told_of_as_long_as_the_host_remembers_and_then_is_none() -> None:
    host = FakeHost()
    sees(host, "worker", 1, "die", exit_code=137)
    assert lines(history(host, "vllmray", since=None)) == ["1 vllmray-worker exited: exit code 137 (SIGKILL)"]
    with pytest.raises(ClusterStateError, match="no cluster other here"):
        history(host, "other", since=None)
    with pytest.raises(ClusterStateError, match="no cluster other here"):
        next(follow(host, "other", since=None))


class Acting(FakeClock):
    """A clock of which each second brings the next act."""

    def __init__(self, *acts: Callable[[], object]) -> None:
        super().__init__()
        self._acts = list(acts)

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        if self._acts:
            self._acts.pop(0)()


def test_following_tells_the_history_and_then_each_thing_once_also_of_what_is_restarted_or_made_anew() -> None:
    host = with_head()
    an_incident(host)

    def anew() -> None:
        spec = host.named("vllmray-engine").spec
        host.stop_and_remove("vllmray-engine", timeout=0)
        host.create_and_start(spec)
        host.happened.clear()
        says(host, "engine", 300, "waiting")

    clock = Acting(
        lambda: says(host, "engine", 100, "died"),
        lambda: sees(host, "engine", 110, "start"),
        lambda: host.named("vllmray-engine").becomes("exited"),
        lambda: host.restart("vllmray-engine", timeout=0),
        host.happened.clear,
        lambda: says(host, "engine", 200, "ready"),
        anew,
    )
    rows = follow(host, "vllmray", since=None, clock=clock)
    told = list(itertools.islice(rows, 6))
    assert told == history_of_the_incident()
    further: list[str] = []
    while not further or not further[-1].startswith("300"):
        further += [line for line in lines([next(rows)]) if float(line.split()[0]) < 1000]
    assert further == [
        "100 vllmray-engine died: said",
        "110 vllmray-engine started: the container",
        "200 vllmray-engine ready: said; recovered after 100 s",
        "300 vllmray-engine waiting: said",
    ]


def history_of_the_incident() -> list[Row]:
    host = with_head()
    an_incident(host)
    return history(host, "vllmray", since=None)


def test_following_since_a_time_tells_nothing_older() -> None:
    host = with_head()
    an_incident(host)
    clock = Acting(lambda: says(host, "engine", 50, "waiting"), lambda: says(host, "head", 70, "node-started"))
    rows = follow(host, "vllmray", since=NIGHT + 60, clock=clock)
    assert lines(list(itertools.islice(rows, 2))) == [
        "65 vllmray-engine ready: said; recovered after 60 s",
        "70 vllmray-head node-started: said",
    ]
