"""Pulling from a real registry, which is down, breaks off or refuses."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Users, nothing_left, wait_for
from tests.e2e.images import MB, contents, on_disk, small_image
from tests.rig.hosts import Rig, TestHost
from tests.rig.registry import PASSWORD, PORT, PROXY_PORT, USER, cutting, registry
from tests.unit.support import FakeClock, RecordingReporter
from vllmray.cluster.images.pull import ensure_image
from vllmray.errors import BrokenConnectionError
from vllmray.hosts.docker.host import DockerHost

PUSHED = f"127.0.0.1:{PORT}/pulled:1"
THROUGH_PROXY = f"127.0.0.1:{PROXY_PORT}/pulled:1"


@pytest.fixture
def host(clean: Rig) -> TestHost:
    return clean.host(1)


@pytest.fixture
def pushed(host: TestHost, tmp_path: Path) -> Iterator[str]:
    """The id of an image of two layers that a registry has in tmp_path / "registry", and the host no longer."""
    with small_image(host, PUSHED, tmp_path / "image", 2 * MB, 30 * MB) as made:
        with registry(host, tmp_path / "registry"):
            host.docker("push", "--quiet", PUSHED)
        host.docker("rmi", "--force", PUSHED)
        host.docker("rmi", "--force", THROUGH_PROXY, check=False)
        yield made
        host.docker("rmi", "--force", THROUGH_PROXY, check=False)


def pull(host: TestHost, name: str) -> RecordingReporter:
    reporter = RecordingReporter()
    docker = DockerHost(host.docker_host)
    try:
        ensure_image(docker, name, reporter, FakeClock())
    finally:
        docker.close()
    return reporter


def test_a_pull_shows_each_layer(host: TestHost, pushed: str, tmp_path: Path) -> None:
    with registry(host, tmp_path / "registry"):
        said = pull(host, PUSHED).lines
    assert contents(host, PUSHED) == pushed
    assert len({line.split()[2] for line in said if line.endswith("1/1 Pull complete")}) == 2
    assert any(line.endswith("Downloading") and "/30" in line for line in said)


def test_a_connection_that_breaks_off_in_the_middle_is_tried_again(host: TestHost, pushed: str, tmp_path: Path) -> None:
    with registry(host, tmp_path / "registry"), cutting(host, after=10 * MB, times=2):
        said = pull(host, THROUGH_PROXY).text()
    assert "Retrying in" in said  # the daemon's own second attempt
    assert "trying again in 1 s" in said
    assert "trying again in 2 s" not in said
    assert contents(host, THROUGH_PROXY) == pushed


def test_one_that_breaks_off_each_time_is_an_error_and_leaves_nothing(
    host: TestHost, pushed: str, tmp_path: Path
) -> None:
    before = on_disk(host)
    with (
        registry(host, tmp_path / "registry"),
        cutting(host, after=10 * MB, times=1000),
        pytest.raises(BrokenConnectionError) as caught,
    ):
        pull(host, THROUGH_PROXY)
    assert caught.value.exit_code == 3
    assert f"could not pull {THROUGH_PROXY}" in caught.value.message
    assert caught.value.details
    assert contents(host, THROUGH_PROXY) == ""
    # The first layer to fail ends the pull; what the others had so far is given up after that.
    wait_for(lambda: on_disk(host) == before, "nothing of the image on the host")


def test_a_registry_that_is_down_is_said_with_the_way_without_one(users: Users) -> None:
    someone = users(1)
    up = someone.vllmray("up", "--role", "head", "--image", PUSHED)
    assert up.returncode == 3
    assert "connection refused" in up.stderr
    assert f"vllmray image copy {PUSHED} --to ssh://USER@" in up.stderr
    assert "trying again" not in up.stderr
    assert nothing_left(someone) == []


def test_a_registry_that_refuses_names_the_login_it_looked_for(users: Users, pushed: str, tmp_path: Path) -> None:
    someone = users(1)
    settings = tmp_path / "docker" / "config.json"
    someone.host.environment["DOCKER_CONFIG"] = str(settings.parent)
    try:
        with registry(someone.host, tmp_path / "registry", guarded=True) as name:
            up = someone.vllmray("up", "--role", "head", "--image", PUSHED)
            assert up.returncode == 3
            assert f"There is no login for {name} in {settings}: docker login {name}" in up.stderr
            assert contents(someone.host, PUSHED) == ""

            settings.parent.mkdir()
            settings.write_text(json.dumps({"auths": {name: {"auth": _basic(USER, "wrong")}}}))
            refused = someone.vllmray("up", "--role", "head", "--image", PUSHED)
            assert f"The login for {name} in {settings} was refused" in refused.stderr

            settings.write_text(json.dumps({"auths": {name: {"auth": _basic(USER, PASSWORD)}}}))
            someone.vllmray("up", "--role", "head", "--image", PUSHED)
            assert contents(someone.host, PUSHED) == pushed
    finally:
        del someone.host.environment["DOCKER_CONFIG"]


def _basic(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()
