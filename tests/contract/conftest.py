"""The hosts that the contract is held to."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fake_host import FakeHost
from vllmray.hosts.base import Host
from vllmray.hosts.docker_host import DockerHost


@dataclass(frozen=True, slots=True)
class Ground:
    """A host to test, an image on it, and how to make a folder that it can mount."""

    host: Host
    image: str
    make_folder: Callable[[], str]
    missing_folder: str
    is_real: bool


@pytest.fixture(params=["fake", "docker over unix", "docker over tcp", "docker over ssh"])
def ground(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ground]:
    """Each host in turn. VLLMRAY_TEST_DOCKER names an image of a found daemon, where there is no rig."""
    if request.param == "fake":
        fake = FakeHost()

        def make_fake_folder() -> str:
            fake.folders.add("/made")
            return "/made"

        yield Ground(fake, "image:1", make_fake_folder, "/missing", is_real=False)
        return
    host, image = _docker(request)
    folder = tmp_path / "made"

    def make_folder() -> str:
        folder.mkdir()
        return str(folder)

    yield Ground(host, image, make_folder, str(tmp_path / "missing"), is_real=True)
    host.close()


def _docker(request: pytest.FixtureRequest) -> tuple[DockerHost, str]:
    found = os.environ.get("VLLMRAY_TEST_DOCKER")
    if found:
        if request.param != "docker over unix":
            pytest.skip("one daemon was found, and it is reached one way")
        return DockerHost(None), found
    clean = request.getfixturevalue("clean")
    first = clean.host(1)
    if request.param == "docker over ssh":
        monkeypatch = request.getfixturevalue("monkeypatch")
        monkeypatch.setenv("PATH", f"{clean.ssh}:{os.environ['PATH']}")
        return DockerHost(first.ssh_host), clean.image
    if request.param == "docker over tcp":
        return DockerHost(f"tcp://{first.address}:2375"), clean.image
    return DockerHost(first.docker_host), clean.image
