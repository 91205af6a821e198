"""`down` against a host in memory: in which order, under which lock, and by force."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.fake_host import FakeHost
from tests.unit.support import RecordingReporter
from vllmray.cluster.down import down, force_down
from vllmray.cluster.lock import NOBODY, Holder, lock_name
from vllmray.cluster.spec.labels import LOCK
from vllmray.errors import HostError
from vllmray.hosts.base import ContainerSpec, Lock, Mount

HOLDER = Holder("me@here", "vllmray down", 1)


def with_clusters(*names: str, host: FakeHost | None = None) -> FakeHost:
    """A head, an engine and a volume of each."""
    host = host or FakeHost()
    for name in names:
        for role in ("head", "engine"):
            labels = {"io.vllmray.cluster": name, "io.vllmray.role": role}
            mount = Mount("memory", f"{name}-ray", "/tmp/ray", labels={"io.vllmray.cluster": name})
            host.create_and_start(
                ContainerSpec(
                    name=f"{name}-{role}", image="image:1", argv=("sleep", "1"), labels=labels, mounts=(mount,)
                )
            )
    host.calls.clear()
    return host


def left(host: FakeHost) -> list[str]:
    return sorted(record.container.name for record in host.records.values())


def test_each_cluster_is_removed_under_its_own_lock_which_is_gone_then() -> None:
    host = with_clusters("b", "a")
    removed = down(host, None, RecordingReporter(), holder=HOLDER)
    assert removed.containers == ("a-engine", "a-head", "b-engine", "b-head")
    assert removed.shared == ("a-ray", "b-ray")
    assert host.asked_for_locks == ["taken vllmray-a-lock", "taken vllmray-b-lock"]
    assert host.locks == {}


def test_where_nothing_is_there_nothing_is_locked() -> None:
    host = with_clusters("a")
    host.volumes["b-ray"] = {"io.vllmray.cluster": "b"}
    removed = down(host, "b", RecordingReporter(), holder=HOLDER)
    assert (removed.containers, removed.shared) == ((), ("b-ray",))
    assert host.asked_for_locks == []
    assert left(host) == ["a-engine", "a-head"]


class Late(FakeHost):
    """Another command starts a node, and ends, while the lock is waited for."""

    def lock(self, name: str, image: str, labels: Mapping[str, str]) -> Lock:
        made = {"io.vllmray.cluster": "a", "io.vllmray.role": "worker"}
        self.create_and_start(ContainerSpec(name="a-worker", image="image:1", argv=("sleep", "1"), labels=made))
        return super().lock(name, image, labels)


def test_what_came_while_it_waited_is_removed_too() -> None:
    host = with_clusters("a", host=Late())
    assert down(host, "a", RecordingReporter()).containers == ("a-engine", "a-worker", "a-head")


def test_a_lock_alone_is_waited_for_and_what_follows_it_removed() -> None:
    """On Docker a lock is a container too, and what is left of one goes when the lock is taken."""
    host = FakeHost()
    host.create_and_start(
        ContainerSpec(name="vllmray-a-lock", image="image:1", argv=("sleep", "1"), labels={LOCK: "a"})
    )
    down(host, "a", RecordingReporter())
    assert host.asked_for_locks == ["taken vllmray-a-lock"]


def test_that_there_can_be_no_lock_is_no_reason_to_leave_a_cluster_there() -> None:
    host, reporter = with_clusters("a"), RecordingReporter()
    host.images.clear()
    assert down(host, "a", reporter).containers == ("a-engine", "a-head")
    assert "continuing without the lock: fake://host: no image image:1" in reporter.text()


def test_by_force_no_lock_is_waited_for_and_that_of_another_is_broken() -> None:
    host = with_clusters("a")
    held = host.lock(lock_name("a"), "image:1", NOBODY.labels("a"))
    assert force_down(host, "a", RecordingReporter()).containers == ("a-engine", "a-head")
    assert host.asked_for_locks == ["taken vllmray-a-lock"]
    assert host.locks == {}
    held.close()


def test_by_force_a_lock_is_broken_though_nothing_is_there_yet() -> None:
    host = with_clusters("b")
    host.lock(lock_name("a"), "image:1", NOBODY.labels("a"))
    assert force_down(host, "a", RecordingReporter()).containers == ()
    assert host.locks == {}
    assert left(host) == ["b-engine", "b-head"]


class Impatient(FakeHost):
    """Tells with which grace containers were stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.graces: list[float] = []

    def stop_and_remove(self, container: str, *, timeout: float) -> None:
        self.graces.append(timeout)
        super().stop_and_remove(container, timeout=timeout)


def test_by_force_nothing_has_a_grace_and_what_does_not_go_keeps_nothing_else() -> None:
    host = Impatient()
    with_clusters("a", "b", host=host)
    host.stuck = {"a-engine", "b-engine"}
    with pytest.raises(HostError, match="could not remove a-engine, b-engine") as caught:
        force_down(host, None, RecordingReporter())
    assert caught.value.details == "a-engine: it does not die\nb-engine: it does not die"
    assert caught.value.exit_code == 3
    assert set(host.graces) == {0}
    assert left(host) == ["a-engine", "b-engine"]
    assert host.volumes == {}


def test_without_force_what_does_not_go_is_an_error_and_the_lock_is_given_back() -> None:
    host = with_clusters("a")
    host.stuck = {"a-engine"}
    with pytest.raises(HostError):
        down(host, "a", RecordingReporter())
    assert left(host) == ["a-engine", "a-head"]
    assert host.locks == {}
