"""Commands that are killed, or hang, or come two at once: the next one finds a cluster that it can go on with."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from tests.e2e.conftest import User, Users, finish, nothing_left, wait_for

HEAD = ("up", "--role", "head", "--no-wait")
# No head answers there: the worker is started all the same, and goes on trying.
WORKER = ("up", "--role", "worker", "--no-wait", "--head-ip", "10.78.0.99")
LOCK = "vllmray-vllmray-lock"


def is_locked(user: User) -> bool:
    return LOCK in user.host.docker("ps", "--format", "{{.Names}}").split()


def killed_after(user: User, lines: int, delay: float, *argv: str) -> list[str]:
    """What it had said of its progress when it was killed."""
    process = user.start(*argv)
    assert process.stderr is not None
    said = [process.stderr.readline() for _ in range(lines)]
    time.sleep(delay)
    process.kill()
    process.communicate()
    return said


def kills_survived(user: User, command: tuple[str, ...], delays: tuple[float, float]) -> int:
    """Kill it after each line of its progress in turn, and so long after that line as the delays say, in turn too: the
    next `up` goes on, and `down` leaves nothing. Returns how many kills that were.
    """
    whole = user.vllmray(*command)
    assert whole.returncode == 0
    assert user.vllmray("down").returncode == 0
    steps = [line for line in whole.stderr.splitlines() if line.endswith("s)")]
    assert len(steps) >= 4
    kills = len(whole.stderr.splitlines()) + 1
    for count in range(kills):
        said = killed_after(user, count, delays[count % 2], *command)
        print(f"killed after: {said[-1:]}")
        again = user.vllmray(*command, timeout=60)
        assert again.returncode == 0, said
        assert nodes(user) == roles(command), said
        assert user.vllmray("down", timeout=60).returncode == 0, said
        assert nothing_left(user) == [], said
    return kills


def nodes(user: User) -> set[str]:
    """The containers, but for a question's own that lost its asker: it ends by itself, and goes with `down`."""
    return {name for name in user.containers() if "-probe-" not in name}


def roles(command: tuple[str, ...]) -> set[str]:
    return {"vllmray-head", "vllmray-engine"} if command is HEAD else {"vllmray-worker"}


def test_a_head_killed_after_any_line_of_its_progress_the_next_up_and_down_leave_nothing(users: Users) -> None:
    assert kills_survived(users(1), HEAD, (0.0, 0.25)) > 4


def test_down_alone_leaves_nothing_of_one_that_was_killed(users: Users) -> None:
    user = users(1)
    for count in range(6):
        said = killed_after(user, count, 0.1, *HEAD)
        assert user.vllmray("down", timeout=60).returncode == 0, said
        wait_for(lambda: nothing_left(user) == [], f"nothing left after {said}", 15)


def test_of_two_at_once_the_second_waits_says_for_whom_and_finds_what_the_first_made(users: Users) -> None:
    user = users(1)
    both = [user.start(*HEAD) for _ in range(2)]
    ended = [finish(process, 120) for process in both]
    assert [code for code, _, _ in ended] == [0, 0]
    errors = [err for _, _, err in ended]
    (waited,) = [err for err in errors if "has been changing it since" in err]
    (first,) = [process for process, err in zip(both, errors, strict=True) if err != waited]
    # nsenter becomes the command, so its number is the command's.
    assert f"(vllmray up, process {first.pid})" in waited
    assert "Ray head: running already" in waited
    assert "vLLM server: running already" in waited
    assert set(user.containers()) == {"vllmray-head", "vllmray-engine"}


def test_a_down_beside_an_up_waits_for_it_and_removes_what_it_made(users: Users) -> None:
    user = users(1)
    up = user.start(*HEAD)
    wait_for(lambda: is_locked(user), "the lock of up")
    down = user.vllmray("down", timeout=120)
    assert down.returncode == 0
    assert "has been changing it since" in down.stderr
    assert finish(up, 60)[0] == 0
    assert nothing_left(user) == []


@pytest.fixture
def hanging(users: Users) -> subprocess.Popen[str]:
    """An `up` that holds the lock, and does nothing more."""
    user = users(1)
    up = user.start(*HEAD)
    wait_for(lambda: is_locked(user), "the lock of up")
    up.send_signal(signal.SIGSTOP)
    return up


def test_down_by_force_waits_for_nobody_and_takes_the_lock_away(users: Users, hanging: subprocess.Popen[str]) -> None:
    user = users(1)
    began = time.monotonic()
    assert user.vllmray("down", "--force", timeout=60).returncode == 0
    assert time.monotonic() - began < 30
    assert user.containers() == {}
    hanging.kill()
    hanging.communicate()
    assert nothing_left(user) == []
    assert user.vllmray(*HEAD).returncode == 0


def test_whoever_waits_for_one_that_hangs_is_told_who_it_is_and_waits_no_longer_than_two_minutes(
    users: Users, hanging: subprocess.Popen[str]
) -> None:
    user = users(1)
    began = time.monotonic()
    waiting = user.start(*HEAD)
    # Meanwhile on another host, as for a head above.
    assert kills_survived(users(2), WORKER, (0.25, 0.0)) > 4
    code, _, err = finish(waiting, 200)
    assert code == 4
    assert 110 < time.monotonic() - began < 160
    assert f"(vllmray up, process {hanging.pid}) has been changing it since" in err.splitlines()[-2]
    assert "vllmray down --force --cluster vllmray" in err
    hanging.kill()
    assert user.vllmray(*HEAD).returncode == 0


def test_a_container_that_ignores_its_end_goes_by_force_at_once(users: Users) -> None:
    user = users(1)
    assert user.vllmray(*HEAD).returncode == 0
    for name in ("vllmray-head", "vllmray-engine"):
        pid = user.host.docker("inspect", "--format", "{{.State.Pid}}", name)
        os.kill(int(pid), signal.SIGSTOP)  # its first process does nothing any more about a SIGTERM
    began = time.monotonic()
    assert user.vllmray("down", "--force", timeout=60).returncode == 0
    assert time.monotonic() - began < 30
    assert nothing_left(user) == []
