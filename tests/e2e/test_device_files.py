"""GPUs on a host whose daemon knows neither CDI nor NVIDIA's runtime: their files, given to containers as they are."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Users, nothing_left

NULL_DEVICE = os.makedev(1, 3)
FILES = ("nvidiactl", "nvidia-uvm", "nvidia0", "nvidia1")


@pytest.fixture
def device_files() -> Iterator[None]:
    """Files of the names that two GPUs have; what is behind them is /dev/null."""
    paths = [Path("/dev", name) for name in FILES if not Path("/dev", name).exists()]
    if len(paths) < len(FILES):
        pytest.skip("this machine has NVIDIA GPUs, or files of that name")
    for path in paths:
        os.mknod(path, stat.S_IFCHR | 0o666, NULL_DEVICE)
    try:
        yield
    finally:
        for path in paths:
            path.unlink()


@pytest.mark.usefixtures("device_files")
def test_a_node_gets_the_files_that_were_asked_for_and_what_controls_them(users: Users) -> None:
    first = users(1)
    nvidia = ("--accelerator", "nvidia", "--tensor-parallel-size", "1", "--pipeline-parallel-size", "1", "--no-wait")
    up = first.vllmray("up", "--role", "head", "--gpus", "device=1", *nvidia)
    assert up.returncode == 0, up.stderr
    assert "1 GPU" in up.stderr
    form = "{{range .HostConfig.Devices}}{{.PathOnHost}} {{end}}"
    given = first.host.docker("inspect", "--format", form, "vllmray-head").split()
    assert given == ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia1"]
    seen = first.host.docker("exec", "vllmray-head", "ls", "/dev").split()
    assert [name for name in seen if name.startswith("nvidia")] == ["nvidia-uvm", "nvidia1", "nvidiactl"]
    again = first.vllmray("up", "--role", "head", *nvidia, "--gpus", "all", "--recreate")
    assert again.returncode == 0, again.stderr
    assert "2 GPUs" in again.stderr
    assert first.vllmray("down").returncode == 0
    assert nothing_left(first) == []


def test_without_such_files_the_missing_runtime_is_named(users: Users) -> None:
    first = users(1)
    up = first.vllmray("up", "--role", "head", "--accelerator", "nvidia")
    assert up.returncode == 3
    assert "could not select device driver" in up.stderr
    assert "container toolkit" in up.stderr
    assert nothing_left(first) == []
