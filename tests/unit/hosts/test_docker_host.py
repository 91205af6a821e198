"""What is sent to the Docker Engine API, as the SDK itself would send it."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from typing import Any

import docker
import pytest

from vllmray.hosts.base import ContainerSpec, File, GpuRequest, Mount
from vllmray.hosts.docker_errors import explain
from vllmray.hosts.docker_host import archive, creation, default_address, label_filter, split_image_name


@pytest.fixture
def api() -> Iterator[docker.APIClient]:
    """The SDK's client; with a stated API version it asks no daemon."""
    client = docker.APIClient(base_url="unix:///nowhere.sock", version="1.45")
    yield client
    client.close()


def host_config(api: docker.APIClient, **fields: Any) -> dict[str, Any]:
    body: dict[str, Any] = creation(api, ContainerSpec(name="n", image="i", argv=("a", "b", "c"), **fields))[
        "host_config"
    ]
    return body


def test_argv_replaces_the_images_entrypoint(api: docker.APIClient) -> None:
    body = creation(api, ContainerSpec(name="n", image="i", argv=("a", "b", "c"), env={"X": "1"}, labels={"l": "2"}))
    assert (body["entrypoint"], body["command"]) == (["a"], ["b", "c"])
    assert (body["environment"], body["labels"], body["name"], body["image"]) == ({"X": "1"}, {"l": "2"}, "n", "i")


def test_network_namespaces_and_memory(api: docker.APIClient) -> None:
    body = host_config(api, ipc="container:h", pid="container:h", shm_size=1024, restart="unless-stopped", init=True)
    assert body["NetworkMode"] == "host"
    assert (body["IpcMode"], body["PidMode"], body["ShmSize"], body["Init"]) == (
        "container:h",
        "container:h",
        1024,
        True,
    )
    assert body["RestartPolicy"] == {"Name": "unless-stopped"}


@pytest.mark.parametrize(
    ("request_made", "sent"),
    [
        (
            GpuRequest("nvidia", count=-1),
            {"Driver": "", "Count": -1, "DeviceIDs": [], "Capabilities": [["gpu"]], "Options": {}},
        ),
        (
            GpuRequest("nvidia", device_ids=("0", "3")),
            {"Driver": "", "Count": 0, "DeviceIDs": ["0", "3"], "Capabilities": [["gpu"]], "Options": {}},
        ),
        (
            GpuRequest("cdi", device_ids=("nvidia.com/gpu=all",)),
            {"Driver": "cdi", "Count": 0, "DeviceIDs": ["nvidia.com/gpu=all"], "Capabilities": [], "Options": {}},
        ),
    ],
)
def test_gpus(api: docker.APIClient, request_made: GpuRequest, sent: dict[str, Any]) -> None:
    assert host_config(api, gpus=request_made)["DeviceRequests"] == [sent]


def test_no_gpus_ask_for_none(api: docker.APIClient) -> None:
    assert not host_config(api).get("DeviceRequests")


def test_devices_groups_capabilities_and_limits(api: docker.APIClient) -> None:
    body = host_config(
        api,
        devices=("/dev/kfd",),
        group_add=("video",),
        cap_add=("SYS_PTRACE",),
        security_opt=("seccomp=unconfined",),
        ulimits={"memlock": -1},
    )
    assert body["Devices"] == [{"PathOnHost": "/dev/kfd", "PathInContainer": "/dev/kfd", "CgroupPermissions": "rwm"}]
    assert (body["GroupAdd"], body["CapAdd"], body["SecurityOpt"]) == (
        ["video"],
        ["SYS_PTRACE"],
        ["seccomp=unconfined"],
    )
    assert body["Ulimits"] == [{"Name": "memlock", "Soft": -1, "Hard": -1}]


def test_mounts_that_must_exist_and_that_may_be_made_and_memory(api: docker.APIClient) -> None:
    body = host_config(
        api,
        mounts=(
            Mount("bind", "/cache", "/c", create=True),
            Mount("bind", "/model", "/m", read_only=True),
            Mount("memory", "volume", "/tmp/ray", labels={"l": "1"}),
        ),
    )
    assert body["Binds"] == ["/cache:/c:rw"]
    model, memory = body["Mounts"]
    assert model == {"Type": "bind", "Source": "/model", "Target": "/m", "ReadOnly": True}
    assert memory["VolumeOptions"] == {
        "NoCopy": True,
        "Labels": {"l": "1"},
        "DriverConfig": {"Name": "local", "Options": {"type": "tmpfs", "device": "tmpfs", "o": "mode=1777"}},
    }


def test_files_are_packed_with_owner_mode_and_the_folders_they_need() -> None:
    files = (File("/a/b/secret", b"s", mode=0o600), File("/a/plain", b"p"))
    with tarfile.open(fileobj=io.BytesIO(archive(files, (1000, 5)))) as tar:
        entries = {entry.name: (oct(entry.mode), entry.uid, entry.gid, entry.isdir()) for entry in tar}
    assert entries == {
        "a": ("0o755", 0, 0, True),
        "a/b": ("0o755", 0, 0, True),
        "a/b/secret": ("0o600", 1000, 5, False),
        "a/plain": ("0o644", 1000, 5, False),
    }


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("vllm", ("vllm", "latest")),
        ("vllm/vllm-openai:v0.33.0", ("vllm/vllm-openai", "v0.33.0")),
        ("localhost:5000/vllm", ("localhost:5000/vllm", "latest")),
        ("localhost:5000/vllm:1", ("localhost:5000/vllm", "1")),
        ("vllm@sha256:abc", ("vllm@sha256:abc", None)),
    ],
)
def test_image_names(name: str, parts: tuple[str, str | None]) -> None:
    assert split_image_name(name) == parts


def test_labels_are_asked_for_by_value_or_by_key() -> None:
    assert label_filter({"a": "1", "b": ""}) == ["a=1", "b"]


def test_the_default_address_is_the_sdks_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://10.0.0.1:2375")
    assert default_address() == "tcp://10.0.0.1:2375"


@pytest.mark.parametrize(
    ("daemon_said", "hint"),
    [
        ('could not select device driver "" with capabilities: [[gpu]]', "container toolkit"),
        ('exec: "ray": executable file not found in $PATH: unknown', "no Ray"),
        ("error setting rlimit type 8: operation not permitted: unknown", "--memlock default"),
        ("error setting rlimit type 7: operation not permitted: unknown", "--nofile default"),
        ('invalid mount config for type "bind": bind source path does not exist: /m', "Make that folder"),
        ('Conflict. The container name "/x" is already in use by container "abc"', "--cluster"),
        ("Error response: manifest for a:b not found: manifest unknown", "check --image"),
        ('Get "https://r/v2/": dial tcp: lookup r: no such host', "docker load"),
        ("write /x: no space left on device", "disk space"),
        ("pull access denied for x, repository does not exist or may require 'docker login': denied", "docker login"),
        ("PermissionError(13, 'Permission denied')", "group docker"),
        ("root@10.0.0.9: Permission denied (publickey).", "without a password"),
        (
            "Error while fetching server API version: ('Connection aborted.', FileNotFoundError(2, 'No such file'))",
            "docker info",
        ),
    ],
)
def test_a_daemons_words_get_a_hint(daemon_said: str, hint: str) -> None:
    error = explain("host", "do it", daemon_said)
    assert error.message == "host: could not do it"
    assert error.details == daemon_said
    assert hint in (error.hint or "")
