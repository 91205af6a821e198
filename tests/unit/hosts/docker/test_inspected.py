"""What daemons said of themselves and of one image: docker 20.10 and 28.5 with both stores, podman 5.8."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from docker.errors import APIError

from vllmray.hosts.docker.inspected import container_of, host_info, image_of
from vllmray.hosts.docker.podman import is_conflict

DOCKER = {"Version": "28.5.2+dfsg4", "Components": [{"Name": "Engine"}, {"Name": "containerd"}, {"Name": "runc"}]}
PODMAN = {"Version": "5.8.6", "Components": [{"Name": "Podman Engine"}, {"Name": "Conmon"}]}
ROOT = ["name=seccomp,profile=default"]
ROOTLESS = [*ROOT, "name=rootless"]
LAYERS = ["sha256:cda888eb32ea", "sha256:b52148e60c18", "sha256:1094306f5740"]
PATH = "PATH=/opt/vllmray/bin:/usr/bin:/bin"


def info(options: list[str], **more: Any) -> dict[str, Any]:
    return {"ServerVersion": "5.8.6", "NCPU": 2, "MemTotal": 24 * 1024**3, "SecurityOptions": options, **more}


@pytest.mark.parametrize(
    ("version", "options", "runtime", "host_network", "command"),
    [
        (DOCKER, ROOT, "Docker 5.8.6", True, ""),
        (DOCKER, ROOTLESS, "Docker 5.8.6", False, ""),
        (PODMAN, ROOT, "Podman 5.8.6", True, "systemctl enable podman-restart.service"),
        (PODMAN, ROOTLESS, "Podman 5.8.6", True, "systemctl --user enable podman-restart.service"),
        ({}, ROOT, "Docker 5.8.6", True, ""),
    ],
)
def test_podman_is_recognised_with_its_network_and_what_starts_it_after_a_reboot(
    version: dict[str, Any], options: list[str], runtime: str, host_network: bool, command: str
) -> None:
    found = host_info(info(options, Architecture="x86_64"), version)
    assert (found.runtime, found.host_network, found.rootless) == (runtime, host_network, options == ROOTLESS)
    assert (found.boot_command or "").startswith(command)
    assert bool(found.boot_command) == bool(command)
    assert found.architecture == "amd64"


def test_cdi_devices_are_those_of_that_source() -> None:
    listed = [{"Source": "cdi", "ID": "nvidia.com/gpu=0"}, {"Source": "other", "ID": "x"}]
    assert host_info(info(ROOT, DiscoveredDevices=listed), DOCKER).cdi_devices == ("nvidia.com/gpu=0",)
    assert host_info(info(ROOT, DiscoveredDevices=None), DOCKER).cdi_devices == ()


def inspected(identity: str, layers: list[str] = LAYERS, **config: Any) -> dict[str, Any]:
    return {
        "Id": identity,
        "Size": 2989099647,
        "Architecture": "amd64",
        "RootFS": {"Type": "layers", "Layers": layers},
        "Config": {"Env": [PATH], "Cmd": ["python3"]} | config,
    }


# Of one `docker save`: the configuration's digest with overlay2 and Podman, the manifest's with containerd's store.
OVERLAY2 = inspected("sha256:3fa94ad67c46", Entrypoint=None, User="", WorkingDir="", Labels=None, Hostname="")
CONTAINERD = inspected("sha256:d25f46e39eda", Entrypoint=None)
WITH_PODMAN = inspected("sha256:3fa94ad67c46")


def test_an_image_is_the_same_in_every_image_store_and_no_other_is() -> None:
    same = [image_of(found) for found in (OVERLAY2, CONTAINERD, WITH_PODMAN)]
    assert len({image.id for image in same}) == 2
    (identity,) = {image.identity for image in same}
    others = [
        inspected("sha256:3fa94ad67c46", layers=LAYERS[:2]),
        inspected("sha256:3fa94ad67c46", layers=[*reversed(LAYERS)]),
        inspected("sha256:3fa94ad67c46", Env=[PATH, "X=1"]),
        inspected("sha256:3fa94ad67c46", User="1000"),
        inspected("sha256:3fa94ad67c46") | {"Architecture": "arm64"},
    ]
    assert len({image_of(found).identity for found in others} | {identity}) == 1 + len(others)


def test_podmans_name_of_an_image_in_no_registry_is_the_users_own() -> None:
    found = {
        "Id": "a",
        "Name": "/vllmray-head",
        "Config": {"Labels": None, "Image": "localhost/node:1"},
        "State": {"Status": "running", "ExitCode": 0, "Error": "", "StartedAt": "", "FinishedAt": ""},
        "RestartCount": 0,
    }
    assert container_of(found).image == "node:1"
    assert container_of(found | {"Config": {"Labels": {}, "Image": "docker.io/vllm/vllm:1"}}).image.startswith("docker")


@pytest.mark.parametrize(
    ("status", "words", "conflict"),
    [
        (409, 'Conflict. The container name "/x" is already in use', True),
        (500, 'creating container storage: the container name "x" is already in use by bff81', True),
        (500, "cannot remove container bff81 as it is running - running or paused containers cannot be removed", True),
        (500, "no space left on device", False),
        (404, "no such container", False),
    ],
)
def test_a_conflict_is_409_with_docker_and_told_by_its_words_with_podman(
    status: int, words: str, conflict: bool
) -> None:
    response = requests.Response()
    response.status_code = status
    assert is_conflict(APIError("failed", response=response, explanation=words)) is conflict
