"""A ContainerSpec in the Docker SDK's terms: the arguments of create_container, and the tar of its files."""

from __future__ import annotations

import io
import tarfile
from pathlib import PurePosixPath
from typing import Any

import docker
from docker import types as docker_types

from vllmray.hosts.base import LOG_OPTIONS, SCRATCH, SCRATCH_OPTIONS, ContainerSpec, File, Mount


def creation(api: docker.APIClient, spec: ContainerSpec, log_driver: str = "") -> dict[str, Any]:
    """The keyword arguments of create_container for a spec.

    Args:
        log_driver: how the daemon keeps logs (GET /info, LoggingDriver).
    """
    host_config = api.create_host_config(
        network_mode=spec.network,
        ipc_mode="private",
        pid_mode="host" if spec.pid == "host" else None,
        shm_size=spec.shm_size,
        binds=[_bind(mount) for mount in spec.mounts if mount.kind == "bind" and mount.create],
        mounts=[_mount(mount) for mount in spec.mounts if not (mount.kind == "bind" and mount.create)],
        ulimits=[docker_types.Ulimit(name=name, soft=limit, hard=limit) for name, limit in spec.ulimits.items()],
        devices=[f"{device}:{device}:rwm" for device in spec.devices],
        device_requests=_device_requests(spec),
        group_add=list(spec.group_add),
        cap_drop=list(spec.cap_drop),
        cap_add=list(spec.cap_add),
        read_only=spec.read_only,
        tmpfs={SCRATCH: SCRATCH_OPTIONS} if spec.read_only else None,
        security_opt=list(spec.security_opt),
        restart_policy={"Name": spec.restart},
        init=spec.init,
        log_config=_log_config(spec, log_driver),
    )
    return {
        "name": spec.name,
        "image": spec.image,
        "user": spec.user,
        "entrypoint": list(spec.argv[:1]),
        "command": list(spec.argv[1:]),
        "environment": dict(spec.env) | ({"HOME": spec.home} if spec.home else {}),
        "labels": dict(spec.labels),
        "host_config": host_config,
        "networking_config": _networking(api, spec),
    }


def _log_config(spec: ContainerSpec, driver: str) -> docker_types.LogConfig | None:
    """Docker does not rotate logs by default; other drivers than these two have other options."""
    if spec.restart == "no" or driver not in ("json-file", "local"):
        return None
    return docker_types.LogConfig(type=driver, config=dict(LOG_OPTIONS))


def _networking(api: docker.APIClient, spec: ContainerSpec) -> dict[str, Any] | None:
    if spec.ip is None:
        return None
    endpoint = api.create_endpoint_config(ipv4_address=spec.ip)
    return api.create_networking_config({spec.network: endpoint})  # type: ignore[arg-type]  # stubs want the endpoint alone


def _bind(mount: Mount) -> str:
    return f"{mount.source}:{mount.target}:{'ro' if mount.read_only else 'rw'}"


def _mount(mount: Mount) -> docker_types.Mount:
    if mount.kind == "bind":
        return docker_types.Mount(mount.target, mount.source, type="bind", read_only=mount.read_only)
    if mount.kind == "own":  # a volume without a name is the container's alone, and is removed with it
        return docker_types.Mount(mount.target, None, type="volume", no_copy=True, labels=dict(mount.labels))
    # tmpfs by way of a volume, so that several containers see the same one; mode 1777 so that any image's user writes.
    driver = docker_types.DriverConfig("local", {"type": "tmpfs", "device": "tmpfs", "o": mount.memory_options})
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


def base_of(spec: ContainerSpec) -> str:
    """Where files are put: the container's own volume if it has one, for the rest may be read-only; else the root."""
    return next((mount.target for mount in spec.mounts if mount.kind == "own"), "/")


def archive(files: tuple[File, ...], owner: tuple[int, int], *, base: str = "/", home: str | None = None) -> bytes:
    """A tar of the files and the folders they need, to be unpacked at base.

    Args:
        owner: uid and gid of the files.
        home: a folder that only the owner may use.

    Raises:
        ValueError: a path is not below base.
    """
    buffer = io.BytesIO()
    places = [(file, PurePosixPath(file.path).relative_to(base)) for file in files]
    folders = {parent for _, place in places for parent in place.parents} - {PurePosixPath(".")}
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in sorted(folders):
            _add_folder(tar, folder, 0o755, (0, 0))
        if home:
            _add_folder(tar, PurePosixPath(home).relative_to(base), 0o700, owner)
        for file, place in places:
            entry = tarfile.TarInfo(str(place))
            entry.size, entry.mode = len(file.content), file.mode
            entry.uid, entry.gid = owner
            tar.addfile(entry, io.BytesIO(file.content))
    return buffer.getvalue()


def _add_folder(tar: tarfile.TarFile, path: PurePosixPath, mode: int, owner: tuple[int, int]) -> None:
    entry = tarfile.TarInfo(str(path))
    entry.type, entry.mode = tarfile.DIRTYPE, mode
    entry.uid, entry.gid = owner
    tar.addfile(entry)
