"""A worker whose software is not the head's, on real daemons with real Ray."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.conftest import User, Users, nothing_left
from tests.rig.hosts import TestHost
from tests.rig.image import VENV
from tests.rig.settings import ENGINE_FLAGS
from tests.rig.wheels import wheel

OTHER = "vllmray-test-other:1"
OTHER_RAY = f"{VENV}/bin/pip install --quiet --no-index --no-deps /mnt/{{wheel}}"
# A second patch version of Python is nowhere to be had from Debian; this one says that it is another.
OTHER_PYTHON = """
cd $(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
echo 'import other_version' > other_version.pth
echo 'import platform; platform.python_version = lambda: "3.11.99"' > other_version.py
"""


@contextmanager
def other_image(host: TestHost, base: str, script: str, *options: str) -> Iterator[str]:
    """An image made from the base by a script; removed at the end."""
    host.docker("run", "--name", "other", *options, base, "sh", "-ec", script)
    host.docker("commit", "other", OTHER)
    host.docker("rm", "other")
    try:
        yield OTHER
    finally:
        host.docker("rmi", "--force", OTHER, check=False)


@pytest.fixture
def head(users: Users) -> User:
    """The user of a host with a head."""
    first = users(1)
    assert first.vllmray("up", "--role", "head", "--no-wait", *ENGINE_FLAGS).returncode == 0
    return first


def refused(worker: User, head: User) -> list[str]:
    """The marked lines of the two columns; nothing was started, and what fixes it was said."""
    done = worker.vllmray("up", "--role", "worker", "--head-ip", head.host.address)
    assert done.returncode == 3
    image = head.settings["VLLMRAY_IMAGE"]
    assert f"vllmray image copy {image} --to ssh://USER@{worker.host.address}" in done.stderr
    assert f"this command again with --image {image}" in done.stderr
    assert "Ray worker" not in done.stderr
    assert nothing_left(worker) == []
    assert head.status()["gpus"]["total"] == 1
    return [line.strip() for line in done.stderr.splitlines() if line.endswith("  differs")]


def test_another_ray_is_refused_with_both_columns(users: Users, head: User) -> None:
    worker = users(2)
    file = wheel("ray==2.59.0")
    mount = ("--mount", f"type=bind,source={file.parent},target=/mnt,readonly")
    base = worker.settings["VLLMRAY_IMAGE"]
    with other_image(worker.host, base, OTHER_RAY.format(wheel=file.name), *mount) as image:
        worker.write_settings(VLLMRAY_IMAGE=image)
        (line,) = refused(worker, head)
        assert line.split() == ["Ray", "2.60.0", "2.59.0", "differs"]


def test_another_patch_version_of_python_is_refused_with_both_columns(users: Users, head: User) -> None:
    worker = users(2)
    with other_image(worker.host, worker.settings["VLLMRAY_IMAGE"], OTHER_PYTHON) as image:
        worker.write_settings(VLLMRAY_IMAGE=image)
        (line,) = refused(worker, head)
        assert line.split()[0] == "Python"
        assert line.split()[2:] == ["3.11.99", "differs"]
