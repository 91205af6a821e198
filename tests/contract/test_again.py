"""What every Host must do about starting again, and about telling what happened."""

from __future__ import annotations

import time
from uuid import uuid4

import pytest

from tests.contract.conftest import Ground
from tests.contract.test_host import CLOSED, LABELS, crashed, ended, only, spec, wait_for
from vllmray.cluster.all_hosts import STAMP
from vllmray.errors import HostError
from vllmray.hosts.base import Mount
from vllmray.hosts.host_events import HostEvent

STUBBORN = "trap '' TERM; echo started; while true; do sleep 0.1; done"


def log(ground: Ground) -> list[str]:
    return list(ground.host.logs(only(ground).id))


def test_a_running_container_gets_another_start_and_stays_the_same_one(ground: Ground) -> None:
    before = ground.host.create_and_start(spec(ground, "sleep", "600"))
    ground.host.restart(before.id, timeout=5)
    after = only(ground)
    assert (after.id, after.name, after.status, after.restarts) == (before.id, before.name, "running", 0)
    assert after.started_unix > before.started_unix
    assert not crashed(after)


def test_a_container_that_ended_runs_again(ground: Ground) -> None:
    ground.host.create_and_start(spec(ground, "echo", "once"))
    before = ended(ground)
    ground.host.restart(before.name, timeout=5)
    wait_for(lambda: log(ground) == ["once", "once"])
    assert ended(ground).id == before.id
    assert only(ground).started_unix > before.started_unix


def test_a_container_in_the_pause_before_its_next_start_is_started_at_once(ground: Ground) -> None:
    ground.host.create_and_start(spec(ground, "false", restart="unless-stopped"))
    wait_for(lambda: only(ground).restarts > 2 or not ground.is_real)
    before = only(ground)
    began = time.monotonic()
    ground.host.restart(before.id, timeout=5)
    assert time.monotonic() - began < 5
    wait_for(lambda: only(ground).started_unix > before.started_unix)


def test_files_are_there_after_a_restart(ground: Ground) -> None:
    container = ground.host.create_and_start(spec(ground, "cat", "/vllmray/secrets/token", **CLOSED))
    ended(ground)
    ground.host.restart(container.id, timeout=5)
    wait_for(lambda: len(log(ground)) == 2)
    assert log(ground) == ["secret", "secret"]


def test_volumes_are_kept_by_a_restart(ground: Ground) -> None:
    if not ground.is_real:
        pytest.skip("the fake has no files but those that it is given")
    script = "echo written >> /vllmray/made; echo written >> /data/made; cat /vllmray/made /data/made"
    mounts = (Mount("own", "", "/vllmray"), Mount("bind", ground.make_folder(), "/data"))
    container = ground.host.create_and_start(spec(ground, "sh", "-c", f"{script}; sleep 600", mounts=mounts))
    wait_for(lambda: len(log(ground)) == 2)
    ground.host.restart(container.id, timeout=5)
    wait_for(lambda: len(log(ground)) == 6)
    assert log(ground) == ["written"] * 6


def test_a_program_that_does_not_end_is_killed_after_the_timeout_and_not_before(ground: Ground) -> None:
    if not ground.is_real:
        pytest.skip("the fake's programs end when they are told to")
    container = ground.host.create_and_start(spec(ground, "sh", "-c", STUBBORN))
    wait_for(lambda: log(ground) == ["started"])
    began = time.monotonic()
    ground.host.restart(container.id, timeout=2)
    assert 1.5 < time.monotonic() - began < 15
    wait_for(lambda: log(ground) == ["started", "started"])
    assert only(ground).status == "running"


def test_a_policy_still_holds_after_a_restart(ground: Ground) -> None:
    if not ground.is_real:
        pytest.skip("the fake has no time for one start after the other")
    container = ground.host.create_and_start(spec(ground, "sleep", "1", restart="unless-stopped"))
    ground.host.restart(container.id, timeout=5)
    assert only(ground).restarts == 0
    wait_for(lambda: only(ground).restarts > 0)


def test_what_is_not_there_can_not_be_restarted(ground: Ground) -> None:
    with pytest.raises(HostError):
        ground.host.restart("no-such-container", timeout=5)


@pytest.fixture
def labels() -> dict[str, str]:
    """Of this test alone: a daemon remembers what earlier tests did too."""
    return LABELS | {"io.vllmray.test": uuid4().hex}


def happened(ground: Ground, labels: dict[str, str], since: float | None = None) -> list[HostEvent]:
    """Of a host that has a daemon to remember; of others there is nothing, and that is asked for too."""
    events = ground.host.events(labels, since=since)
    if not ground.is_docker:
        assert events == []
        pytest.skip("processes have no daemon that remembers")
    return events


def test_a_start_and_an_end_with_its_exit_code_are_remembered(ground: Ground, labels: dict[str, str]) -> None:
    ground.host.create_and_start(spec(ground, "false", labels=labels))
    ended(ground)
    events = happened(ground, labels)
    assert [(event.action, event.exit_code, event.signal) for event in events] == [
        ("start", None, None),
        ("die", 1, None),
    ]
    start, die = events
    assert {event.container for event in events} == {"contract"}
    assert {event.labels["io.vllmray.role"] for event in events} == {"head"}
    assert time.time() - 60 < start.at <= die.at < time.time() + 5
    assert happened(ground, labels, start.at - 0.001) == events
    assert happened(ground, labels, die.at + 0.001) == []
    assert happened(ground, labels, time.time() + 60) == []
    assert happened(ground, labels | {"io.vllmray.role": "worker"}) == []


def test_a_restart_policy_at_work_is_remembered(ground: Ground, labels: dict[str, str]) -> None:
    ground.host.create_and_start(spec(ground, "false", labels=labels, restart="unless-stopped"))
    wait_for(lambda: only(ground).restarts > 0)
    wait_for(lambda: len(ground.host.events(labels, since=None)) >= 3 or not ground.is_docker)
    # Podman tells of a policy's restart as of one by a command, and of the start after it.
    events = [event for event in happened(ground, labels) if not (ground.is_podman and event.action == "restart")]
    assert [(event.action, event.exit_code) for event in events[:3]] == [("start", None), ("die", 1), ("start", None)]


def test_the_signal_that_ended_a_container_is_remembered_when_it_is_gone_and_no_exec_is(
    ground: Ground, labels: dict[str, str]
) -> None:
    container = ground.host.create_and_start(spec(ground, "sleep", "600", labels=labels))
    ground.host.exec(container.id, ("true",)).close()
    ground.host.stop_and_remove(container.id, timeout=5)
    said = [(event.action, event.signal or event.exit_code) for event in happened(ground, labels)]
    if ground.is_podman:  # which remembers no signal that it sent, and not each time that it was told to stop
        assert [each for each in said if each[0] != "stop"] == [("start", None), ("die", 143)]
        return
    assert said[:2] == [("start", None), ("kill", 15)]
    assert sorted(said[2:], key=str) == [("die", 143), ("stop", None)]  # Docker 28 may tell of the stop first


def test_a_restart_is_remembered_as_one(ground: Ground, labels: dict[str, str]) -> None:
    container = ground.host.create_and_start(spec(ground, "sleep", "600", labels=labels))
    ground.host.restart(container.id, timeout=5)
    actions = [event.action for event in happened(ground, labels)]
    if ground.is_podman:
        assert [each for each in actions if each != "stop"] == ["start", "restart", "die", "start"]
        return
    assert actions[:2] == ["start", "kill"]
    assert sorted(actions[2:4]) == ["die", "stop"]
    assert actions[4:] == ["start", "restart"]


def test_a_log_since_a_time_has_every_line_from_then_on(ground: Ground) -> None:
    began = time.time() - 5
    container = ground.host.create_and_start(spec(ground, "echo", "said"))
    ended(ground)
    assert list(ground.host.logs(container.id, since=began)) == ["said"]
    assert list(ground.host.logs(container.id, since=0)) == ["said"]
    older_are_left_out = ground.is_docker and ground.is_real
    late = list(ground.host.logs(container.id, since=time.time() + 5))
    assert late == ([] if older_are_left_out else ["said"])


def test_a_shell_script_runs_on_the_host_itself_where_one_is_in_reach(ground: Ground) -> None:
    said = ground.host.shell("echo from here", timeout=10)
    if ground.host.address.startswith("tcp://"):
        assert said is None
        return
    assert said == "from here\n"
    with pytest.raises(HostError) as caught:
        ground.host.shell("exit 3", timeout=10)
    assert ground.host.address in caught.value.message


def test_lines_of_a_log_begin_with_their_time_where_the_host_knows_it(ground: Ground) -> None:
    container = ground.host.create_and_start(spec(ground, "echo", "a line"))
    ended(ground)
    (line,) = ground.host.logs(container.id, stamped=True)
    if ground.host.address.startswith("native://"):
        assert line == "a line"
        return
    stamp, _, text = line.partition(" ")
    assert text == "a line"
    assert STAMP.fullmatch(stamp)
