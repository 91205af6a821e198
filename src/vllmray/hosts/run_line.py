"""A ContainerSpec as the `docker run` line that would make it; pure, for --dry-run and for whole-line tests."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping

from vllmray.hosts.base import ContainerSpec, File, Mount


def run_line(spec: ContainerSpec, sources: Mapping[str, str]) -> str:
    """The line, broken after each option.

    Args:
        sources: for files that are put into the container, where the same content lies on this machine; the line
            mounts them from there. A secret is never in it, only a comment that says where it would be.
    """
    parts = ["docker run --detach", *_options(spec, sources)]
    parts.append(shlex.join([spec.image, *spec.argv[1:]]))
    comments = [
        f"# and {file.path}, mode {file.mode:04o}, put there before the start" for file in spec.files if file.secret
    ]
    return "\n".join([*comments, " \\\n  ".join(parts)])


def _options(spec: ContainerSpec, sources: Mapping[str, str]) -> Iterator[str]:
    yield _flag("name", spec.name)
    yield "--network host"
    yield _flag("restart", spec.restart)
    if spec.init:
        yield "--init"
    yield _flag("ipc", spec.ipc)
    if spec.pid:
        yield _flag("pid", spec.pid)
    if spec.shm_size is not None:
        yield _flag("shm-size", str(spec.shm_size))
    yield from _device_options(spec)
    for name, limit in spec.ulimits.items():
        yield _flag("ulimit", f"{name}={limit}:{limit}")
    for mount in spec.mounts:
        yield _mount(mount)
    for file in spec.files:
        if not file.secret:
            yield _file(file, sources)
    for name, value in spec.env.items():
        yield _flag("env", f"{name}={value}")
    for name, value in spec.labels.items():
        yield _flag("label", f"{name}={value}")
    yield _flag("entrypoint", spec.argv[0])


def _flag(name: str, value: str) -> str:
    return f"--{name} {shlex.quote(value)}"


def _device_options(spec: ContainerSpec) -> Iterator[str]:
    gpus = spec.gpus
    if gpus and gpus.driver == "cdi":
        for name in gpus.device_ids:
            yield _flag("device", name)
    elif gpus and gpus.device_ids:
        yield _flag("gpus", '"device=' + ",".join(gpus.device_ids) + '"')
    elif gpus:
        yield _flag("gpus", "all" if gpus.count < 0 else str(gpus.count))
    for device in spec.devices:
        yield _flag("device", device)
    for group in spec.group_add:
        yield _flag("group-add", group)
    for capability in spec.cap_add:
        yield _flag("cap-add", capability)
    for option in spec.security_opt:
        yield _flag("security-opt", option)


def _mount(mount: Mount) -> str:
    if mount.kind == "bind" and mount.create:
        return _flag("volume", f"{mount.source}:{mount.target}{':ro' if mount.read_only else ''}")
    if mount.kind == "bind":
        read_only = ",readonly" if mount.read_only else ""
        return _flag("mount", f"type=bind,source={mount.source},target={mount.target}{read_only}")
    marks = "".join(f",volume-label={name}={value}" for name, value in mount.labels.items())
    options = "volume-driver=local,volume-opt=type=tmpfs,volume-opt=device=tmpfs,volume-opt=o=mode=1777"
    return _flag("mount", f"type=volume,source={mount.source},target={mount.target},volume-nocopy,{options}{marks}")


def _file(file: File, sources: Mapping[str, str]) -> str:
    return _flag("volume", f"{sources[file.path]}:{file.path}:ro")
