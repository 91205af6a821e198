"""GPUs that a daemon gives itself: by the names of a CDI specification, and by NVIDIA's hook."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import User, Users, nothing_left, wait_for
from tests.rig.hosts import Rig, TestHost

UP = ("up", "--role", "head", "--accelerator", "nvidia", "--no-wait", "--no-model-check")
SIZES = ("--tensor-parallel-size", "1", "--pipeline-parallel-size", "1")
# What is behind the files is /dev/null (CDI specification 0.6, "containerEdits").
SPECIFICATION = {
    "cdiVersion": "0.6.0",
    "kind": "nvidia.com/gpu",
    "devices": [
        {
            "name": name,
            "containerEdits": {
                "env": [f"GPU_BY_CDI={name}"],
                "deviceNodes": [{"path": f"/dev/nvidia{number}", "hostPath": "/dev/null"} for number in numbers],
            },
        }
        for name, numbers in (("0", (0,)), ("1", (1,)), ("all", (0, 1)))
    ],
}
HOOK = """#!/usr/bin/python3
import json, pathlib, sys
config = json.loads(pathlib.Path(json.load(sys.stdin)["bundle"], "config.json").read_text())
asked = [line for line in config["process"]["env"] if line.startswith("NVIDIA_VISIBLE_DEVICES=")]
with open({log!r}, "a") as log:
    print(*sys.argv[1:], *asked, file=log)
"""


def devices(user: User) -> list[str]:
    """The NVIDIA device files in the head's container."""
    names = user.host.docker("exec", "vllmray-head", "ls", "/dev").split()
    return sorted(name for name in names if name.startswith("nvidia"))


def requests(user: User) -> list[dict[str, object]]:
    """As the daemon has them (Engine API, HostConfig.DeviceRequests)."""
    text = user.host.docker("inspect", "--format", "{{json .HostConfig.DeviceRequests}}", "vllmray-head")
    found: list[dict[str, object]] = json.loads(text)
    return found


@pytest.fixture
def cdi(clean: Rig) -> Iterator[TestHost]:
    """A host whose daemon lists two GPUs by CDI."""
    host = clean.host(2)
    folder = host.folder / "cdi"
    folder.mkdir(exist_ok=True)
    specification = folder / "nvidia.json"
    specification.write_text(json.dumps(SPECIFICATION))
    wait_for(lambda: "nvidia.com/gpu=1" in host.docker("info", "--format", "{{json .DiscoveredDevices}}"), "its GPUs")
    yield host
    specification.unlink()


@pytest.mark.usefixtures("cdi")
def test_a_daemon_that_lists_cdi_devices_is_asked_for_them_by_name(users: Users) -> None:
    second = users(2)
    up = second.vllmray(*UP, *SIZES, "--gpus", "device=1")
    assert up.returncode == 0, up.stderr
    assert [(each["Driver"], each["DeviceIDs"]) for each in requests(second)] == [("cdi", ["nvidia.com/gpu=1"])]
    assert devices(second) == ["nvidia1"]
    environ = second.host.docker("exec", "vllmray-head", "cat", "/proc/1/environ").split("\0")
    assert "GPU_BY_CDI=1" in environ
    again = second.vllmray(*UP, *SIZES, "--gpus", "all", "--recreate")
    assert again.returncode == 0, again.stderr
    assert "2 GPUs" in again.stderr
    assert devices(second) == ["nvidia0", "nvidia1"]
    missing = second.vllmray(*UP, *SIZES, "--gpus", "device=7", "--recreate")
    assert missing.returncode != 0
    assert "7" in missing.stderr
    assert second.vllmray("down").returncode == 0
    assert nothing_left(second) == []


@pytest.fixture
def hook(clean: Rig, tmp_path: Path) -> Iterator[Path]:
    """What NVIDIA's hook was told on host 3, whose daemon finds a stand-in for it (moby, daemon/nvidia_linux.go)."""
    host, log, program = clean.host(3), tmp_path / "asked", tmp_path / "bin" / "nvidia-container-runtime-hook"
    log.touch()
    program.parent.mkdir()
    program.write_text(HOOK.format(log=str(log)))
    program.chmod(0o755)
    host.stop_daemon()
    host.start_daemon(programs=program.parent)
    yield log
    host.clear()
    host.stop_daemon()
    host.start_daemon()


@pytest.mark.parametrize(("gpus", "visible"), [("device=1", "1"), ("device=0,2", "0,2"), ("2", "0,1")])
def test_nvidias_hook_is_told_which_gpus_were_asked_for(users: Users, hook: Path, gpus: str, visible: str) -> None:
    third = users(3)
    up = third.vllmray(*UP, *SIZES, "--gpus", gpus)
    assert set(hook.read_text().splitlines()) == {f"prestart NVIDIA_VISIBLE_DEVICES={visible}"}
    assert up.returncode == 3  # the stand-in gives none
    assert "no nvidia GPU is visible" in up.stderr
    assert nothing_left(third) == []
