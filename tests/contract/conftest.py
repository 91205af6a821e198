"""The hosts that the contract is held to."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fake_host import FakeHost
from tests.rig.hosts import Rig, TestHost
from vllmray.hosts.base import Host
from vllmray.hosts.docker.host import DockerHost
from vllmray.hosts.native.host import NativeHost


@dataclass(frozen=True, slots=True)
class Ground:
    """A host to test, an image on it, and how to make a folder that it can mount."""

    host: Host
    image: str
    make_folder: Callable[[], str]
    missing_folder: str
    remove_image: Callable[[str], object]
    volumes: Callable[[], set[str]]
    """The names of all volumes of the host."""
    docker: Callable[..., str]
    """The docker command, for what the protocol has no verb for."""
    is_real: bool
    is_docker: bool = True
    """Docker, or Podman by Docker's API."""
    is_podman: bool = False
    is_rootless: bool = False


@pytest.fixture(params=["fake", "native", "docker over unix", "docker over tcp", "docker over ssh"])
def ground(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ground]:
    """Each host in turn. VLLMRAY_TEST_DOCKER names an image of a found daemon, where there is no rig."""
    if request.param == "fake":
        fake = FakeHost()

        def make_fake_folder() -> str:
            fake.folders.add("/made")
            return "/made"

        yield Ground(
            *(fake, "image:1", make_fake_folder, "/missing"),
            remove_image=fake.images.pop,
            volumes=lambda: set(fake.volumes),
            docker=_no_docker_command,
            is_real=False,
        )
        return
    is_docker = request.param != "native"
    host, image = _docker(request) if is_docker else _native(tmp_path)
    info = host.info()
    place = tmp_path
    if info.rootless:  # pytest's folders are its user's alone
        place = Path(tempfile.mkdtemp(prefix="vllmray-"))
        place.chmod(0o777)
    folder = place / "made"

    def make_folder() -> str:
        folder.mkdir()
        folder.chmod(0o777 if info.rootless else 0o755)
        return str(folder)

    missing = str(place / "missing")
    docker = _docker_command(request) if is_docker else _no_docker_command
    yield Ground(
        *(host, image, make_folder, missing),
        remove_image=lambda name: docker("rmi", "--force", name),
        volumes=lambda: set(docker("volume", "ls", "--quiet").split()),
        docker=docker,
        is_real=True,
        is_docker=is_docker,
        is_podman=info.runtime.startswith("Podman"),
        is_rootless=info.rootless,
    )
    _clear(host)
    if place != tmp_path:
        shutil.rmtree(place)
    host.close()


def _native(folder: Path) -> tuple[Host, str]:
    return NativeHost(folder / "state", os.environ), sys.executable


def _clear(host: Host) -> None:
    ours = {"io.vllmray.cluster": "contract"}
    for container in host.containers(ours):
        host.stop_and_remove(container.id, timeout=0)
    host.break_lock("contract-lock")
    host.prune(ours)


def _docker_command(request: pytest.FixtureRequest) -> Callable[..., str]:
    """The docker command, for what the protocol has no verb for; returns what it prints."""
    found = os.environ.get("VLLMRAY_TEST_DOCKER")
    where = [] if found else ["-H", host_of(request).docker_host]

    def run(*argv: str) -> str:
        return subprocess.run(["docker", *where, *argv], check=True, capture_output=True, text=True).stdout

    return run


def _no_docker_command(*argv: str) -> str:
    raise AssertionError(f"docker {argv[0]} of a host without Docker")


def host_of(request: pytest.FixtureRequest) -> TestHost:
    """Each way leads to another host: scripts/test gives them the oldest Docker, the newest, and Podman."""
    rig: Rig = request.getfixturevalue("clean")
    number = {"docker over tcp": 2, "docker over ssh": 3}.get(request.node.callspec.params["ground"], 1)
    return rig.host(min(number, len(rig.hosts)))


def _docker(request: pytest.FixtureRequest) -> tuple[Host, str]:
    found = os.environ.get("VLLMRAY_TEST_DOCKER")
    if found:
        if request.param != "docker over unix":
            pytest.skip("one daemon was found, and it is reached one way")
        return DockerHost(None), found
    clean, host = request.getfixturevalue("clean"), host_of(request)
    if request.param == "docker over ssh":
        monkeypatch = request.getfixturevalue("monkeypatch")
        monkeypatch.setenv("PATH", f"{clean.ssh}:{os.environ['PATH']}")
        return DockerHost(host.ssh_host), clean.image
    if request.param == "docker over tcp":
        return DockerHost(f"tcp://{host.address}:2375", insecure_tcp=True), clean.image
    return DockerHost(host.docker_host), clean.image
