"""A ContainerSpec as the command line that would make it; pure, for --dry-run and for whole-line tests."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from vllmray.hosts.base import LOG_OPTIONS, SCRATCH, SCRATCH_OPTIONS, SHARED_MEMORY, ContainerSpec, File, Mount
from vllmray.hosts.native.environment import visible_gpus
from vllmray.hosts.native.paths import PathMap, folders_of


def run_line(spec: ContainerSpec, sources: Mapping[str, str]) -> str:
    """The line, broken after each option.

    Args:
        sources: for files that are put into the container, and folders of such files, where the same content lies on
            this machine; the line mounts them from there. What is not in sources is a comment that says where it goes.
    """
    parts = ["docker run --detach", *_options(spec, sources)]
    parts.append(shlex.join([spec.image, *spec.argv[1:]]))
    return "\n".join([*_missing(spec, sources), " \\\n  ".join(parts)])


def _missing(spec: ContainerSpec, sources: Mapping[str, str]) -> list[str]:
    """Comments for files whose content is not on this machine's disk."""
    return [
        f"# and {file.path}, mode {file.mode:04o}, put there before the start"
        for file in spec.files
        if _source(file, sources) is None
    ]


def _source(file: File, sources: Mapping[str, str]) -> str | None:
    """The file, or the folder above it, that is in sources; None when neither is."""
    parents = (str(parent) for parent in PurePosixPath(file.path).parents)
    return next((path for path in (file.path, *parents) if path in sources), None)


def _from_here(spec: ContainerSpec, sources: Mapping[str, str]) -> list[str]:
    """What is taken from this machine: each file or folder once."""
    return list(dict.fromkeys(path for file in spec.files if (path := _source(file, sources))))


def process_line(spec: ContainerSpec, sources: Mapping[str, str]) -> str:
    """The lines that start the same as a process of this machine, in the environment of the Python spec.image.

    Args:
        sources: for the container's files, where the same content lies on this machine; they are put below /tmp, as
            are the folders that nodes share.
    """
    modes = {file.path: file.mode for file in spec.files}
    files = {path: f"/tmp/{spec.name}{path}" for path in (*modes, *_from_here(spec, sources))}  # nosec B108 # lines for a person, who makes these folders
    folders = {parent: f"/tmp/{spec.name}{parent}" for path in files for parent in folders_of(path)}  # nosec B108 # as above
    mounts = [mount for mount in spec.mounts if mount.kind != "own" and mount.target != SHARED_MEMORY]
    shared = {mount.target: mount.source if mount.kind == "bind" else f"/tmp/{mount.source}" for mount in mounts}  # nosec B108 # as above
    paths = PathMap({**folders, **files, **shared})
    named = visible_gpus(spec, {}) if spec.gpus and spec.gpus.device_ids else {}  # of a count, Ray takes as many itself
    env = paths.env(spec.env) | named | {"PATH": f"{PurePosixPath(spec.image).parent}:$PATH"}
    words = [f"{name}={_in_shell(value)}" for name, value in env.items()]
    made = [shared[mount.target] for mount in mounts if mount.create or mount.kind == "memory"]
    return "\n".join(
        [
            *_missing(spec, sources),
            f"mkdir -p {shlex.join(made)}",
            *(_copy(sources[path], files[path], modes.get(path)) for path in _from_here(spec, sources)),
            " \\\n  ".join(["env", *words, shlex.join(paths.argv(spec.argv))]),
        ]
    )


def _copy(source: str, target: str, mode: int | None) -> str:
    """Args: mode: of a file; None for a folder."""
    if mode is None:
        return f"mkdir -p {shlex.quote(target)} && cp -R {shlex.join([f'{source}/.', target])}"
    return f"install -D -m {mode:04o} {shlex.join([source, target])}"


def _in_shell(value: str) -> str:
    return f'"{value}"' if value.endswith(":$PATH") else shlex.quote(value)


def _options(spec: ContainerSpec, sources: Mapping[str, str]) -> Iterator[str]:
    yield _flag("name", spec.name)
    yield from _sharing_options(spec)
    yield from _device_options(spec)
    if spec.user:
        yield _flag("user", spec.user)
    if spec.read_only:
        yield "--read-only"
        yield _flag("tmpfs", f"{SCRATCH}:{SCRATCH_OPTIONS}")
    if spec.home:
        yield _flag("tmpfs", f"{spec.home}:{SCRATCH_OPTIONS}")
    for name, limit in spec.ulimits.items():
        yield _flag("ulimit", f"{name}={limit}:{limit}")
    yield from (_mount(mount) for mount in spec.mounts)
    yield from (_flag("volume", f"{sources[path]}:{path}:ro") for path in _from_here(spec, sources))
    for name, value in spec.env.items():
        yield _flag("env", f"{name}={value}")
    if spec.home:
        yield _flag("env", f"HOME={spec.home}")
    for name, value in spec.labels.items():
        yield _flag("label", f"{name}={value}")
    yield _flag("entrypoint", spec.argv[0])


def _sharing_options(spec: ContainerSpec) -> Iterator[str]:
    yield _flag("network", spec.network)
    if spec.ip:
        yield _flag("ip", spec.ip)
    if spec.pid != "own":
        yield _flag("pid", spec.pid)
    yield _flag("restart", spec.restart)
    if spec.restart != "no":
        yield from (_flag("log-opt", f"{name}={value}") for name, value in LOG_OPTIONS.items())
    if spec.init:
        yield "--init"
    if spec.shm_size is not None:
        yield _flag("shm-size", str(spec.shm_size))


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
    for capability in spec.cap_drop:
        yield _flag("cap-drop", capability)
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
    if mount.kind == "own":
        return _flag("mount", f"type=volume,target={mount.target},volume-nocopy{marks}")
    # Docker's own parser takes a comma for the end of an option unless the option is in quotes (encoding/csv).
    tmpfs = f'volume-opt=type=tmpfs,volume-opt=device=tmpfs,"volume-opt=o={mount.memory_options}"'
    options = f"volume-driver=local,{tmpfs}"
    return _flag("mount", f"type=volume,source={mount.source},target={mount.target},volume-nocopy,{options}{marks}")
