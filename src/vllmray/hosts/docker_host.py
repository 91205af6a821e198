"""A Docker daemon as a Host; the only importer of the Docker SDK.

The SDK's low-level client is used throughout: its requests are the Engine API's own, and its pull and exec streams
keep what the convenience classes drop (images.pull discards errors inside the stream; exec_run has no exit code when
streaming).
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath
from typing import Any, TypeVar

import docker
import requests
from docker import types as docker_types
from docker.context import ContextAPI
from docker.errors import APIError, DockerException, NotFound
from docker.utils import kwargs_from_env

from vllmray.errors import HostError
from vllmray.hosts.base import Container, ContainerSpec, Exec, File, HostInfo, Image, Mount, PullEvent
from vllmray.hosts.docker_errors import explain
from vllmray.hosts.docker_exec import DockerExec
from vllmray.hosts.ssh import Tunnel

T = TypeVar("T")

CONNECT_TIMEOUT_S = 10
REQUEST_TIMEOUT_S = 60
NEVER_STARTED = "0001-01-01T00:00:00Z"


class DockerHost:
    """One daemon, by its address or (None) by DOCKER_HOST, the current Docker context, or the local socket."""

    def __init__(self, address: str | None = None) -> None:
        self._address = address or default_address()
        self._tunnel = Tunnel(self._address) if self._address.startswith("ssh://") else None
        try:
            with self._telling("reach the daemon"):
                self._api = self._connect(self._tunnel.url if self._tunnel else address)
        except BaseException:
            if self._tunnel:
                self._tunnel.close()
            raise

    @staticmethod
    def _connect(address: str | None) -> docker.APIClient:
        if address is None:
            client = docker.from_env(timeout=CONNECT_TIMEOUT_S)
        else:
            client = docker.DockerClient(base_url=address, timeout=CONNECT_TIMEOUT_S)
        # Making the client asks the daemon for its version, so it is there; from here on a request may take longer.
        client.api.timeout = REQUEST_TIMEOUT_S
        return client.api

    @property
    def address(self) -> str:
        return self._address

    @contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        """Every failure of the SDK leaves as a HostError that names this host."""
        try:
            yield
        except (DockerException, requests.exceptions.RequestException, OSError) as error:
            explanation = error.explanation if isinstance(error, APIError) else None
            raise explain(self._address, what, str(explanation or error)) from error

    def ping(self) -> None:
        with self._telling("reach the daemon"):
            self._api.ping()

    def info(self) -> HostInfo:
        with self._telling("ask the daemon what it is"):
            info = self._api.info()
        devices = info.get("DiscoveredDevices") or []
        return HostInfo(
            version=info["ServerVersion"],
            operating_system=info["OperatingSystem"],
            cpus=info["NCPU"],
            memory=info["MemTotal"],
            cdi_devices=tuple(device["ID"] for device in devices if device.get("Source") == "cdi"),
        )

    def image(self, name: str) -> Image | None:
        with self._telling(f"look for image {name}"):
            try:
                found = self._api.inspect_image(name)  # type: ignore[no-untyped-call]
            except NotFound:
                return None
        return Image(id=found["Id"], size=found["Size"], user=(found.get("Config") or {}).get("User") or "")

    def pull(self, name: str) -> Iterator[PullEvent]:
        repository, tag = split_image_name(name)
        with self._telling(f"pull {name}"):
            for line in self._api.pull(repository, tag=tag, stream=True, decode=True):
                if "error" in line:
                    raise explain(self._address, f"pull {name}", line["error"])
                detail = line.get("progressDetail") or {}
                total = detail.get("total")
                yield PullEvent(line.get("id", ""), line.get("status", ""), int(detail.get("current") or 0), total)

    def create_and_start(self, spec: ContainerSpec) -> Container:
        with self._telling(f"create container {spec.name}"):
            created = self._api.create_container(**creation(self._api, spec))["Id"]
        try:
            with self._telling(f"put files into {spec.name}"):
                self._put_files(created, spec)
            with self._telling(f"start container {spec.name}"):
                self._api.start(created)
            return self._container(created)
        except BaseException:
            with suppress(DockerException, requests.exceptions.RequestException):
                self._api.remove_container(created, force=True, v=True)
            raise

    def _put_files(self, container: str, spec: ContainerSpec) -> None:
        if spec.files:
            user = (self._api.inspect_container(container)["Config"] or {}).get("User") or ""
            self._api.put_archive(container, "/", archive(spec.files, self._owner(container, user)))

    def _owner(self, container: str, user: str) -> tuple[int, int]:
        """(uid, gid) of an image's user, which may be a name that only its /etc/passwd knows."""
        name, _, group = user.partition(":")
        if not name or name in ("root", "0"):
            return 0, 0
        if name.isdigit():
            return int(name), int(group) if group.isdigit() else 0
        chunks, _ = self._api.get_archive(container, "/etc/passwd")
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
            lines = tar.extractfile("passwd").read().decode().splitlines()  # type: ignore[union-attr]  # a plain file
        for line in lines:
            entry = line.split(":")
            if entry[0] == name:
                return int(entry[2]), int(entry[3])
        raise HostError(f"{self._address}: the image's user {user} is not in its /etc/passwd")

    def containers(self, labels: Mapping[str, str]) -> list[Container]:
        with self._telling("list containers"):
            listed = self._api.containers(all=True, filters={"label": label_filter(labels)})
        return [found for entry in listed if (found := self._gone_is_none(self._container, entry["Id"]))]

    def _container(self, name: str) -> Container:
        with self._telling(f"look at container {name}"):
            found = self._api.inspect_container(name)
        state = found["State"]
        return Container(
            id=found["Id"],
            name=found["Name"].removeprefix("/"),
            status=state["Status"],
            labels=found["Config"]["Labels"] or {},
            image=found["Config"]["Image"],
            exit_code=state["ExitCode"],
            restarts=found["RestartCount"],
            error=state["Error"],
            started_at=state["StartedAt"] or NEVER_STARTED,
        )

    def _gone_is_none(self, call: Callable[[str], T], name: str) -> T | None:
        """The call's result, or None when the container is gone: another command may remove it meanwhile."""
        try:
            return call(name)
        except HostError as error:
            if isinstance(error.__cause__, NotFound):
                return None
            raise

    def exec(self, container: str, argv: tuple[str, ...]) -> Exec:
        with self._telling(f"run {argv[0]} in {container}"):
            return DockerExec(self._api, container, argv)

    def logs(self, container: str, *, follow: bool = False, tail: int | None = None) -> Iterator[str]:
        with self._telling(f"read the log of {container}"):
            chunks = self._api.logs(container, stream=True, follow=follow, tail="all" if tail is None else tail)
            try:
                yield from _lines(chunks)
            finally:
                chunks.close()

    def stop_and_remove(self, container: str, *, timeout: float) -> None:
        with self._telling(f"stop {container}"), suppress(NotFound):
            self._api.stop(container, timeout=int(timeout))
            self._api.remove_container(container, force=True, v=True)

    def remove_volumes(self, labels: Mapping[str, str]) -> list[str]:
        with self._telling("remove volumes"):
            listed = self._api.volumes(filters={"label": label_filter(labels)})["Volumes"] or []
            names = [str(volume["Name"]) for volume in listed]
            for name in names:
                with suppress(NotFound):
                    self._api.remove_volume(name)
        return names

    def close(self) -> None:
        self._api.close()
        if self._tunnel:
            self._tunnel.close()


def default_address() -> str:
    """Where the SDK goes when it is told nothing: DOCKER_HOST, the current Docker context, the local socket."""
    stated = kwargs_from_env().get("base_url")
    if stated:
        return str(stated)
    with suppress(DockerException, OSError, ValueError):
        return str(ContextAPI.get_current_context().Host)
    return "the default Docker host"


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line.decode(errors="replace").rstrip("\r") for line in lines)
    if rest:
        yield rest.decode(errors="replace")


def label_filter(labels: Mapping[str, str]) -> list[str]:
    """The Engine API's form: "key=value", or the key alone."""
    return [f"{key}={value}" if value else key for key, value in labels.items()]


def split_image_name(name: str) -> tuple[str, str | None]:
    """(repository, tag) as pull takes them; "latest" where neither tag nor digest is given, as with `docker pull`."""
    if "@" in name:
        return name, None
    head, separator, tail = name.rpartition(":")
    return (head, tail) if separator and "/" not in tail else (name, "latest")


def archive(files: tuple[File, ...], owner: tuple[int, int]) -> bytes:
    """A tar of the files and the folders they need, to be unpacked at /."""
    buffer = io.BytesIO()
    folders: set[PurePosixPath] = set()
    for file in files:
        folders.update(PurePosixPath(file.path).parents)
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in sorted(folders - {PurePosixPath("/")}):
            entry = tarfile.TarInfo(str(folder).lstrip("/"))
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for file in files:
            entry = tarfile.TarInfo(file.path.lstrip("/"))
            entry.size, entry.mode = len(file.content), file.mode
            entry.uid, entry.gid = owner
            tar.addfile(entry, io.BytesIO(file.content))
    return buffer.getvalue()


def creation(api: docker.APIClient, spec: ContainerSpec) -> dict[str, Any]:
    """The keyword arguments of create_container for a spec."""
    host_config = api.create_host_config(
        network_mode="host",
        ipc_mode=spec.ipc,
        pid_mode=spec.pid,
        shm_size=spec.shm_size,
        binds=[_bind(mount) for mount in spec.mounts if mount.kind == "bind" and mount.create],
        mounts=[_mount(mount) for mount in spec.mounts if not (mount.kind == "bind" and mount.create)],
        ulimits=[docker_types.Ulimit(name=name, soft=limit, hard=limit) for name, limit in spec.ulimits.items()],
        devices=[f"{device}:{device}:rwm" for device in spec.devices],
        device_requests=_device_requests(spec),
        group_add=list(spec.group_add),
        cap_add=list(spec.cap_add),
        security_opt=list(spec.security_opt),
        restart_policy={"Name": spec.restart},
        init=spec.init,
    )
    return {
        "name": spec.name,
        "image": spec.image,
        "entrypoint": list(spec.argv[:1]),
        "command": list(spec.argv[1:]),
        "environment": dict(spec.env),
        "labels": dict(spec.labels),
        "host_config": host_config,
    }


def _bind(mount: Mount) -> str:
    return f"{mount.source}:{mount.target}:{'ro' if mount.read_only else 'rw'}"


def _mount(mount: Mount) -> docker_types.Mount:
    if mount.kind == "bind":
        return docker_types.Mount(mount.target, mount.source, type="bind", read_only=mount.read_only)
    # tmpfs by way of a volume, so that several containers see the same one; mode 1777 so that any image's user writes.
    driver = docker_types.DriverConfig("local", {"type": "tmpfs", "device": "tmpfs", "o": "mode=1777"})
    return docker_types.Mount(
        mount.target,
        mount.source,
        type="volume",
        no_copy=True,
        labels=dict(mount.labels),
        driver_config=driver,
    )


def _device_requests(spec: ContainerSpec) -> list[docker_types.DeviceRequest]:
    if spec.gpus is None:
        return []
    ids = list(spec.gpus.device_ids)
    if spec.gpus.driver == "cdi":
        return [docker_types.DeviceRequest(driver="cdi", device_ids=ids)]
    if ids:
        return [docker_types.DeviceRequest(device_ids=ids, capabilities=[["gpu"]])]
    return [docker_types.DeviceRequest(count=spec.gpus.count, capabilities=[["gpu"]])]
