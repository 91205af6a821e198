"""An image from one real daemon to two others, over ssh."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.conftest import User, Users, finish, wait_for
from tests.e2e.images import MB, RECEIVING, contents, on_disk, small_image
from tests.rig.hosts import SWITCH, Rig, TestHost, run

NAME = "vllmray-test-copied:1"


@pytest.fixture
def someone(users: Users, clean: Rig) -> Iterator[User]:
    yield users(1)
    for host in clean.hosts:
        host.docker("rmi", "--force", NAME, check=False)


def saves(user: User, since: float) -> int:
    """How often an image was read from that user's daemon."""
    bounds = ("--since", f"{since:.9f}", "--until", f"{time.time():.9f}")
    lines = user.host.docker("events", *bounds, "--filter", "type=image", "--filter", "event=save")
    return len(lines.splitlines())


def test_two_hosts_get_the_same_image_from_one_reading_and_not_again(someone: User, clean: Rig, tmp_path: Path) -> None:
    second, third = clean.host(2), clean.host(3)
    to = ("--to", second.ssh_host, "--to", third.ssh_host)
    began = time.time()
    with small_image(someone.host, NAME, tmp_path / "image", 5 * MB, 40 * MB) as made:
        done = someone.vllmray("image", "copy", NAME, *to)
        assert done.returncode == 0
        assert [contents(host, NAME) for host in (second, third)] == [made, made]
        assert saves(someone, began) == 1
        assert done.stderr.count("does not have it") == 2
        assert done.stderr.count(" MB/s") == 2

        again = someone.vllmray("image", "copy", NAME, *to)
        assert again.returncode == 0
        assert again.stderr.count("has it already") == 2
        assert saves(someone, began) == 1

        third.docker("rmi", "--force", NAME)
        before = on_disk(second)
        assert someone.vllmray("image", "copy", NAME, *to).returncode == 0
        assert contents(third, NAME) == made
        assert on_disk(second) == before


def test_a_host_that_can_not_be_reached_is_named_before_anything_is_sent(someone: User, tmp_path: Path) -> None:
    began = time.time()
    with small_image(someone.host, NAME, tmp_path / "image", MB):
        done = someone.vllmray("image", "copy", NAME, "--to", "ssh://root@10.78.0.2/no/such/socket")
        assert done.returncode == 3
        assert "10.78.0.2" in done.stderr
        assert saves(someone, began) == 0


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_copy_that_is_ended_in_the_middle_leaves_nothing_on_the_target(
    someone: User, clean: Rig, tmp_path: Path, end: signal.Signals
) -> None:
    target = clean.host(3)  # containerd's image store keeps what it has received until its garbage collection
    before, had = on_disk(target), _received(target.data)
    with slow_cable(target), small_image(someone.host, NAME, tmp_path / "image", 200 * MB):
        process = someone.start("image", "copy", NAME, "--to", target.ssh_host)
        wait_for(lambda: _received(target.data) > had + 20 * MB, "part of the image on its way")
        process.send_signal(end)
        finish(process, 30)
        wait_for(lambda: on_disk(target) == before, "nothing of the image on the target")
        wait_for(lambda: someone.host.processes() == [], "no ssh of a command that is gone")
    assert contents(target, NAME) == ""


@contextmanager
def slow_cable(host: TestHost) -> Iterator[None]:
    """40 MB/s to that host, so that there is a middle of a copy."""
    port = ("-n", SWITCH, "qdisc")
    device = ("dev", f"p{host.number}", "root")
    run("tc", *port, "add", *device, "tbf", "rate", "320mbit", "burst", "1mb", "latency", "100ms")
    try:
        yield
    finally:
        run("tc", *port, "del", *device)


def _received(data: Path) -> int:
    total = 0
    for path in (path for place in RECEIVING for path in (data / place).rglob("*")):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total


def test_a_target_that_goes_away_is_named_and_the_other_has_the_image(
    someone: User, clean: Rig, tmp_path: Path
) -> None:
    second, third = clean.host(2), clean.host(3)
    had = _received(second.data)
    with slow_cable(second), small_image(someone.host, NAME, tmp_path / "image", 200 * MB) as made:
        process = someone.start("image", "copy", NAME, "--to", second.ssh_host, "--to", third.ssh_host)
        wait_for(lambda: _received(second.data) > had + 20 * MB, "part of the image on its way")
        assert second.daemon is not None
        second.daemon.kill()
        second.daemon.wait()
        try:
            code, _, err = finish(process, 120)
        finally:
            second.start_daemon()
        assert code == 3
        assert f"was not copied to {second.ssh_host}" in err
        assert contents(third, NAME) == made
        assert contents(second, NAME) == ""
