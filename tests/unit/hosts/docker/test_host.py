"""What is sent to the Docker Engine API, as the SDK itself would send it."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from vllmray.errors import HostError
from vllmray.hosts.base import ContainerSpec, File, GpuRequest, Mount
from vllmray.hosts.docker.address import default_address, refuse_bare_tcp
from vllmray.hosts.docker.errors import explain
from vllmray.hosts.docker.host import DockerHost, label_filter
from vllmray.hosts.docker.names import login_hint, split_image_name
from vllmray.hosts.docker.spec import archive, base_of, creation


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
    body = host_config(api, shm_size=1024, restart="unless-stopped", init=True)
    assert body["NetworkMode"] == "host"
    assert (body["IpcMode"], body["ShmSize"], body["Init"]) == ("private", 1024, True)
    assert not body.get("PidMode")
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
        cap_drop=("ALL",),
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
    assert body["CapDrop"] == ["ALL"]
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
        "DriverConfig": {
            "Name": "local",
            "Options": {"type": "tmpfs", "device": "tmpfs", "o": "mode=1777,nosuid,nodev"},
        },
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


def test_files_below_the_containers_own_volume_are_packed_from_there_with_a_home_of_its_users_alone() -> None:
    own = (Mount("bind", "/models", "/m"), Mount("own", "", "/vllmray"))
    files = (File("/vllmray/secrets/token", b"s", mode=0o600, secret=True), File("/vllmray/watch.py", b"p"))
    base = base_of(ContainerSpec(name="n", image="i", argv=("a",), mounts=own))
    assert base == "/vllmray"
    packed = archive(files, (1000, 5), base=base, home="/vllmray/home")
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        entries = {entry.name: (oct(entry.mode), entry.uid, entry.gid, entry.isdir()) for entry in tar}
    assert entries == {
        "secrets": ("0o755", 0, 0, True),
        "home": ("0o700", 1000, 5, True),
        "secrets/token": ("0o600", 1000, 5, False),
        "watch.py": ("0o644", 1000, 5, False),
    }
    with pytest.raises(ValueError, match="/etc/elsewhere"):
        archive((File("/etc/elsewhere", b""),), (0, 0), base=base)


def test_a_container_whose_own_folders_can_not_be_written_has_tmp_in_memory_and_a_volume_of_its_own(
    api: docker.APIClient,
) -> None:
    spec = ContainerSpec(
        *("n", "i", ("a",)), home="/vllmray/home", read_only=True, mounts=(Mount("own", "", "/vllmray"),)
    )
    body = creation(api, spec)
    assert body["environment"] == {"HOME": "/vllmray/home"}
    assert body["host_config"]["ReadonlyRootfs"] is True
    assert body["host_config"]["Tmpfs"] == {"/tmp": "rw,exec,nosuid,nodev,mode=1777"}
    (volume,) = body["host_config"]["Mounts"]
    assert (volume["Type"], volume["Target"], volume["Source"]) == ("volume", "/vllmray", None)
    assert volume["VolumeOptions"] == {"NoCopy": True}
    usual = creation(api, ContainerSpec(name="n", image="i", argv=("a",)))["host_config"]
    assert (usual["ReadonlyRootfs"], usual.get("Tmpfs")) == (False, None)


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


@pytest.fixture
def no_docker_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither variables of docker's, nor contexts."""
    for name in ("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "none"))


@pytest.fixture
def certificates(tmp_path: Path, no_docker_settings: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that docker's variables name; nothing here opens them."""
    folder = tmp_path / "certificates"
    folder.mkdir()
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (folder / name).touch()
    monkeypatch.setenv("DOCKER_CERT_PATH", str(folder))
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")


@pytest.mark.usefixtures("no_docker_settings")
@pytest.mark.parametrize(
    "address",
    [
        *("tcp://10.0.0.1:2375", "tcp://127.0.0.1:2375", "tcp://localhost:2375", "http://10.0.0.1:2375"),
        # Which the SDK takes for the same (docker 7.2, utils/utils.py, parse_host).
        *("10.0.0.1:2375", ":2375", "TCP://10.0.0.1:2375", " tcp://10.0.0.1:2375"),
    ],
)
def test_a_daemon_that_anyone_can_speak_to_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HostError, match="over TCP without TLS") as caught:
        refuse_bare_tcp(address, address)
    assert caught.value.exit_code == 3
    assert "ssh://" in str(caught.value.hint)
    assert "--insecure-docker-tcp" in str(caught.value.hint)
    monkeypatch.setenv("DOCKER_HOST", address)
    for stated in (None, address):
        with pytest.raises(HostError, match="over TCP without TLS"):
            DockerHost(stated)


@pytest.mark.usefixtures("no_docker_settings")
@pytest.mark.parametrize("address", ["unix:///var/run/docker.sock", "ssh://root@10.0.0.1"])
def test_a_daemon_that_its_host_guards_is_spoken_to(address: str) -> None:
    assert not refuses(address, address)
    assert not refuses(None, address)


def refuses(stated: str | None, address: str) -> bool:
    try:
        refuse_bare_tcp(stated, address)
    except HostError:
        return True
    return False


@pytest.mark.usefixtures("certificates")
def test_with_certificates_a_daemon_is_spoken_to_over_tcp(monkeypatch: pytest.MonkeyPatch) -> None:
    for address in ("tcp://10.0.0.1:2376", "https://10.0.0.1:2376"):
        refuse_bare_tcp(address, address)
        monkeypatch.setenv("DOCKER_HOST", address)
        refuse_bare_tcp(None, address)
    # Certificates of which none is looked at are none; and plain HTTP has no use for them.
    with pytest.raises(HostError, match="over TCP without TLS"):
        refuse_bare_tcp("http://10.0.0.1:2376", "http://10.0.0.1:2376")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "")
    with pytest.raises(HostError, match="over TCP without TLS"):
        refuse_bare_tcp("tcp://10.0.0.1:2376", "tcp://10.0.0.1:2376")


@pytest.mark.usefixtures("certificates")
def test_certificates_that_are_named_and_not_there_are_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CERT_PATH", "/no/such/folder")
    for stated in (None, "tcp://10.0.0.1:2376"):
        monkeypatch.setenv("DOCKER_HOST", "tcp://10.0.0.1:2376")
        with pytest.raises(HostError) as caught:
            DockerHost(stated)
        assert "certificate" in str(caught.value.details)


@pytest.mark.usefixtures("no_docker_settings")
def test_without_tls_a_daemon_is_spoken_to_when_the_user_says_so() -> None:
    with pytest.raises(HostError, match=r"cannot reach Docker at tcp://127.0.0.1:1: connection refused"):
        DockerHost("tcp://127.0.0.1:1", insecure_tcp=True)


RUNC = (
    "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: "
)
HOOK = (
    f"{RUNC}unable to start container process: error during container init: error running prestart hook #0: "
    "exit status 1, stdout: , stderr: Auto-detected mode as 'legacy'\nnvidia-container-cli: "
)
NO_DEVICE = 'error gathering device information while adding custom device "{}": no such file or directory'
NO_SOCKET = "Error while fetching server API version: ('Connection aborted.', "


@pytest.mark.parametrize(
    ("daemon_said", "hint"),
    [
        ("failed to discover GPU vendor from CDI: no known GPU vendor found", "NVIDIA container toolkit"),
        ("CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=3", "nvidia-ctk cdi generate"),
        ('container create: lookup init binary: exec: "catatonit": executable file not found in $PATH', "catatonit"),
        ('could not select device driver "" with capabilities: [[gpu]]', "container toolkit"),
        ("error setting rlimit type 8: operation not permitted: unknown", "--memlock default"),
        ("error setting rlimit type 7: operation not permitted: unknown", "--nofile default"),
        ('invalid mount config for type "bind": bind source path does not exist: /m', "Make that folder"),
        ("error while creating mount source path '/c': mkdir /c: permission denied", "--model-cache-dir"),
        ("error while creating mount source path '/c': mkdir /c: read-only file system", "--model-cache-dir"),
        ('Conflict. The container name "/x" is already in use by container "abc"', "--cluster"),
        (NO_DEVICE.format("/dev/infiniband"), "leave out --rdma"),
        (NO_DEVICE.format("/dev/infiniband/uverbs0"), "leave out --rdma"),
        (NO_DEVICE.format("/dev/kfd"), "load amdgpu"),
        (NO_DEVICE.format("/dev/dri/renderD128"), "load amdgpu"),
        (NO_DEVICE.format("/dev/nvidia-uvm"), "load its driver"),
        (f"{HOOK}requirement error: unsatisfied condition: cuda>=13.0, please update your driver", "update the driver"),
        (f"{HOOK}requirement error: unsatisfied condition: brand = tesla", "NVIDIA_REQUIRE"),
        (f"{HOOK}initialization error: nvml error: driver not loaded", "nvidia-smi works"),
        (f"{HOOK}device error: 9: unknown device", "nvidia-smi -L"),
        ('could not inject devices: unknown device "GPU-8f6b1c1e"', "nvidia-smi -L"),
        ("exec /usr/bin/python3: exec format error", "another architecture"),
        (f'{RUNC}exec: "python3": executable file not found in $PATH: unknown', "no Python"),
        (f'{RUNC}exec: "/opt/python3": permission denied: unknown', "may not run that"),
        ("Error response: manifest for a:b not found: manifest unknown", "check --image"),
        ("no matching manifest for linux/arm64/v8 in the manifest list entries", "this host's architecture"),
        ("no match for platform in manifest: not found", "this host's architecture"),
        ("image with reference a:b was found but does not provide the specified platform (linux/arm64)", "--image"),
        ("toomanyrequests: You have reached your unauthenticated pull rate limit. https://x/y", "log in to it"),
        ("received unexpected HTTP status: 429 Too Many Requests", "image copy"),
        ('Get "https://r/v2/": dial tcp: lookup r: no such host', "image copy"),
        ("write /x: no space left on device", "disk space"),
        ("pull access denied for x, repository does not exist or may require 'docker login': denied", "docker login"),
        ("denied: requested access to the resource is denied", "docker login"),
        ("PermissionError(13, 'Permission denied')", "group docker"),
        (f"{NO_SOCKET}PermissionError(13, 'Permission denied'))", "group docker"),
        ("[Errno 13] Permission denied", "group docker"),
        ("root@10.0.0.9: Permission denied (publickey).", "without a password"),
        ("ssh: connect to host 10.0.0.9 port 22: Connection refused", "that `ssh` to that host works"),
        ("ssh: Could not resolve hostname gpu9: Name or service not known", "that `ssh` to that host works"),
        (f"{NO_SOCKET}FileNotFoundError(2, 'No such file'))", "docker info"),
        ("[Errno 2] No such file or directory", "docker info"),
        ("Invalid bind address format: nohost:", "unix://"),
        ("('Connection broken: IncompleteRead(3 bytes read)', IncompleteRead(3 bytes read))", "same command again"),
    ],
)
def test_a_daemons_words_get_a_hint(daemon_said: str, hint: str) -> None:
    error = explain("host", "do it", daemon_said)
    assert error.message == "host: could not do it"
    assert error.details == daemon_said
    assert hint in (error.hint or "")


@pytest.mark.parametrize("daemon_said", [
    'error mounting "/x" to rootfs at "/y": no such file or directory: unknown',
    "open /sys/fs/cgroup/x: permission denied: unknown",
    "unsupported media type application/vnd.docker.distribution.manifest.v1+prettyjws",
])  # fmt: skip
def test_of_words_that_are_not_known_nothing_is_guessed(daemon_said: str) -> None:
    assert explain("host", "do it", daemon_said).hint is None


def test_a_refused_pull_names_the_login_that_it_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    hint = login_hint("registry.example:5000/team/vllm:1")
    assert f"There is no login for registry.example:5000 in {tmp_path}" in hint
    assert ": docker login registry.example:5000" in hint
    entry = base64.b64encode(b"someone:secret").decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"registry.example:5000": {"auth": entry}}}))
    hint = login_hint("registry.example:5000/team/vllm:1")
    assert f"The login for registry.example:5000 in {tmp_path}/config.json was refused" in hint
    assert "secret" not in hint
    assert "docker login docker.io" in login_hint("vllm/vllm-openai:v0.33.0")


@pytest.mark.parametrize(("restart", "driver", "turned"), [
    ("unless-stopped", "json-file", True), ("unless-stopped", "local", True), ("unless-stopped", "journald", False),
    ("no", "json-file", False),
])  # fmt: skip
def test_the_log_of_what_runs_on_is_turned_over_where_docker_keeps_it_in_files(
    api: docker.APIClient, restart: Any, driver: str, turned: bool
) -> None:
    body: dict[str, Any] = creation(api, ContainerSpec(name="n", image="i", argv=("a",), restart=restart), driver)[
        "host_config"
    ]
    options = {"Type": driver, "Config": {"max-size": "50m", "max-file": "3"}}
    assert body.get("LogConfig") == (options if turned else None)
