"""This machine's processes as a Host: for machines without Docker, HPC nodes, rented GPU containers.

What is a container elsewhere is here a process that leads a session, with a supervisor of its own
(native/supervisor.py) and a folder under the user's state directory (native/records.py). It runs in the environment of
a Python: that one is the "image". Namespaces, capabilities, devices and the size of /dev/shm are what this machine and
user have; where a path of the container is named, a path of this machine takes its place (native/paths.py).
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import socket
import stat
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from vllmray.errors import HostError
from vllmray.hosts.base import NEVER, SHARED_MEMORY, BuildSpec, Container, ContainerSpec, Exec, Lock, Mount, PullEvent
from vllmray.hosts.facts import HostInfo, Image
from vllmray.hosts.host_events import HostEvent
from vllmray.hosts.native.environment import environment
from vllmray.hosts.native.exec import NativeExec
from vllmray.hosts.native.lock import take
from vllmray.hosts.native.log import lines_of
from vllmray.hosts.native.paths import PathMap, folders_of
from vllmray.hosts.native.processes import MARK, SHM, end, free_memory, has_ended, living, members, note_memory
from vllmray.hosts.native.records import NodeFolder, NodeSpec, NodeState, Records, SharedMemory
from vllmray.hosts.native.restart import restarted_by_its_supervisor
from vllmray.hosts.shell import LOCAL, output_of
from vllmray.images.architecture import architecture_of
from vllmray.wait import SystemClock

# Ray's sockets lie in a shared folder, and the name of a socket must be short (107 bytes, man 7 unix).
SHORT_FOLDERS = Path("/tmp")  # nosec B108 # _shared_folder refuses what is not this user's alone
KILL_S = 0.1


class NativeHost:
    """This machine, as its user.

    Args:
        state_folder: where records are kept.
        environ: the user's environment, of which a node gets a part.
    """

    def __init__(self, state_folder: Path, environ: Mapping[str, str]) -> None:
        self._host_name = socket.gethostname()
        self._records = Records(state_folder, self._host_name)
        self._environ = environ
        self._clock = SystemClock()

    @property
    def address(self) -> str:
        return f"native://{self._host_name}"

    def ping(self) -> None:
        self._records.check()

    def info(self) -> HostInfo:
        return HostInfo(
            runtime="processes of this machine",
            cpus=len(os.sched_getaffinity(0)),
            memory=psutil.virtual_memory().total,
            architecture=architecture_of(platform.machine()),
        )

    def shell(self, script: str, *, timeout: float) -> str | None:
        return output_of(LOCAL, script, self.address, timeout=timeout)

    def image(self, name: str) -> Image | None:
        python = Path(name)
        if not (python.is_absolute() and os.access(python, os.X_OK) and python.is_file()):
            return None
        digest = hashlib.sha256(f"{python}\n{python.resolve()}".encode()).hexdigest()
        return Image(id=f"sha256:{digest}", size=0, user="", fixed=False)

    def pull(self, name: str) -> Iterator[PullEvent]:
        raise HostError(
            f"{self.address}: {name} is not an executable Python",
            hint="Name the Python of the environment that has Ray and vLLM, as an absolute path (--python).",
        )

    def build(self, spec: BuildSpec, tag: str) -> Iterator[str]:  # noqa: ARG002  # the protocol's
        raise HostError(f"{self.address}: the native runtime has no images, so {tag} can't be built")

    def save(self, names: Sequence[str]) -> Iterator[bytes]:
        raise HostError(f"{self.address}: the native runtime has no images, so it can't save {' and '.join(names)}")

    def load(self, stream: Iterator[bytes]) -> None:  # noqa: ARG002  # the protocol's
        raise HostError(f"{self.address}: the native runtime has no images, so it can't load one")

    def make_network(self, name: str, labels: Mapping[str, str]) -> str:  # noqa: ARG002  # the protocol's
        raise HostError(f"{self.address}: the native runtime uses this machine's network, so {name} can't be created")

    def lock(self, name: str, image: str, labels: Mapping[str, str]) -> Lock:  # noqa: ARG002  # a file is enough
        self._records.check()
        try:
            return take(self._records.locks, name, labels)
        except OSError as error:
            raise HostError(f"{self.address}: can't write to {self._records.locks.path}: {error.strerror}") from error

    def break_lock(self, name: str) -> None:
        self._records.locks.remove(name)

    def create_and_start(self, spec: ContainerSpec) -> Container:
        if self.image(spec.image) is None:
            raise HostError(f"{self.address}: {spec.image} is not an executable Python")
        if spec.user:
            raise HostError(f"{self.address}: processes run as the user who starts them, not as {spec.user}")
        draft = self._records.draft()
        try:
            node = self._resolve(spec, draft)
        except BaseException:
            draft.remove()
            raise
        folder = self._records.publish(draft, spec.name)
        if folder is None:
            raise HostError(
                f"{self.address}: node {spec.name} exists already",
                hint="Remove it (vllmray down), or choose another cluster name with --cluster.",
            )
        try:
            self._start(node, folder)
        except BaseException:
            self._end(folder, timeout=0)
            raise
        return _container(node, folder.state())

    def _resolve(self, spec: ContainerSpec, draft: NodeFolder) -> NodeSpec:
        """Write the folder's contents: the files, and the spec in terms of this machine."""
        paths = PathMap(self._paths(spec, self._records.node(spec.name)))
        for file in spec.files:
            path = Path(f"{draft.files}{file.path}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            path.write_bytes(file.content)
            path.chmod(file.mode)
        for mount in spec.mounts:
            if mount.kind == "own":
                Path(f"{draft.files}{mount.target}").mkdir(parents=True, exist_ok=True)
        node_id = uuid.uuid4().hex
        node = NodeSpec(
            id=node_id,
            name=spec.name,
            image=spec.image,
            argv=paths.argv(spec.argv),
            env=environment(spec, self._environ) | paths.env(spec.env) | {MARK: node_id},
            labels=dict(spec.labels),
            limits=dict(spec.ulimits),
            restart=spec.restart == "unless-stopped",
            init=spec.init,
            paths=paths.paths,
        )
        draft.write_spec(node)
        draft.write_shared_memory(SharedMemory(before={path.name for path in SHM.glob("*")}))
        return node

    def _paths(self, spec: ContainerSpec, folder: NodeFolder) -> dict[str, str]:
        paths = {}
        for file in spec.files:
            paths[file.path] = f"{folder.files}{file.path}"
            for parent in folders_of(file.path):
                if not Path(parent).exists():  # a folder of the container's alone
                    paths[parent] = f"{folder.files}{parent}"
        for mount in spec.mounts:
            if mount.target == SHARED_MEMORY:
                continue
            source = f"{folder.files}{mount.target}" if mount.kind == "own" else self._source(mount)
            if source != mount.target:
                paths[mount.target] = source
        return paths

    def _source(self, mount: Mount) -> str:
        if mount.kind == "memory":
            return str(self._shared_folder(mount))
        folder = Path(mount.source)
        if mount.create:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise HostError(f"{self.address}: can't create {folder}: {error.strerror}") from error
        elif not folder.exists():
            raise HostError(f"{self.address}: {folder} does not exist", hint="Make that folder, or correct the path.")
        return str(folder)

    def _shared_folder(self, mount: Mount) -> Path:
        """The folder of a volume; made for this user alone, and never one that somebody else put there."""
        mine = SHORT_FOLDERS / f"vllmray-{os.getuid()}"
        mine.mkdir(mode=0o700, exist_ok=True)
        found = mine.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise HostError(f"{self.address}: {mine} is not private to you", hint=f"Check its mode: ls -ld {mine}")
        digest = hashlib.sha256(f"{self._records.root}\n{mount.source}".encode()).hexdigest()
        folder = mine / digest[:8]
        folder.mkdir(mode=0o700, exist_ok=True)
        self._records.add_volume(mount.source, folder, mount.labels)
        return folder

    def _start(self, node: NodeSpec, folder: NodeFolder) -> None:
        argv = [sys.executable, "-m", "vllmray.hosts.native.supervisor", str(folder.path)]
        started = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        try:
            error = json.loads(started.stdout)["error"]
        except ValueError:
            error = started.stderr.decode(errors="replace")[-2000:] or "its supervisor exited without output"
        if error:
            raise HostError(f"{self.address}: could not start {node.name}", details=error)

    def containers(self, labels: Mapping[str, str]) -> list[Container]:
        found = []
        for folder in self._records.nodes():
            spec = folder.spec()
            if spec and _carries(spec.labels, labels):
                found.append(_container(spec, folder.state()))
        return found

    def exec(self, container: str, argv: tuple[str, ...]) -> Exec:
        folder, spec = self._find(container)
        if living(folder.state().main) is None:
            raise HostError(f"{self.address}: {spec.name} is not running")
        argv = PathMap(spec.paths).argv(argv)
        program = shutil.which(argv[0], path=spec.env["PATH"])
        if program is None:
            raise HostError(f"{self.address}: program {argv[0]} not found")
        return NativeExec((program, *argv[1:]), spec.env, folder.path)

    def logs(
        self,
        container: str,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: float | None = None,  # noqa: ARG002  # the protocol's: no line has a time here
        stamped: bool = False,  # noqa: ARG002  # as above
    ) -> Iterator[str]:
        folder, _ = self._find(container)
        return lines_of(folder, follow=follow, tail=tail, clock=self._clock)

    def events(self, labels: Mapping[str, str], *, since: float | None) -> list[HostEvent]:  # noqa: ARG002  # as above
        return []  # no daemon records them; the supervisors write to their nodes' logs

    def restart(self, container: str, *, timeout: float) -> None:
        folder, spec = self._find(container)
        if not restarted_by_its_supervisor(folder, address=self.address, timeout=timeout, clock=self._clock):
            self._halt(folder, timeout=timeout)
            self._start(spec, folder)

    def stop_and_remove(self, container: str, *, timeout: float) -> None:
        with suppress(_GoneError):
            folder, _ = self._find(container)
            self._end(folder, timeout=timeout)

    def _end(self, folder: NodeFolder, *, timeout: float) -> None:
        self._halt(folder, timeout=timeout)
        folder.remove()

    def _halt(self, folder: NodeFolder, *, timeout: float) -> None:
        """Supervisor first, so that nothing is started again; then the node, then whatever it left."""
        spec, state = folder.spec(), folder.state()
        supervisor = living(state.supervisor)
        if supervisor:
            supervisor.kill()
            self._wait_for([supervisor], 10)
            state = folder.state()
        if spec:
            note_memory(folder, spec, state)
            main = living(state.main)
            if main and timeout > 0:
                with suppress(psutil.NoSuchProcess):
                    main.terminate()
                self._wait_for([main], timeout)
            end(lambda: members(spec.id, state.main), lambda left: self._wait_for(left, KILL_S))
            free_memory(folder)

    def _wait_for(self, processes: list[psutil.Process], timeout: float) -> None:
        """Until they are gone, or are zombies that their parent has not reaped, or the time is over."""
        deadline = self._clock.monotonic() + timeout
        while any(_runs(process) for process in processes) and self._clock.monotonic() < deadline:
            self._clock.sleep(0.02)

    def prune(self, labels: Mapping[str, str]) -> list[str]:
        removed = []
        for name, (path, carried) in self._records.volumes().items():
            if _carries(carried, labels):
                shutil.rmtree(path, ignore_errors=True)
                self._records.forget_volume(name)
                removed.append(name)
        return removed

    def close(self) -> None:
        pass

    def _find(self, container: str) -> tuple[NodeFolder, NodeSpec]:
        for folder in self._records.nodes():
            spec = folder.spec()
            if spec and container in (spec.id, spec.name):
                return folder, spec
        raise _GoneError(f"{self.address}: no such node: {container}")


class _GoneError(HostError):
    """The requested node does not exist."""


def _runs(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and not has_ended(process)
    return False


def _carries(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(key in labels and value in ("", labels[key]) for key, value in wanted.items())


def _container(spec: NodeSpec, state: NodeState) -> Container:
    """The state that the supervisor last wrote; where the supervisor is gone, that of the process."""
    status = state.status
    if status in ("created", "running", "restarting") and living(state.supervisor) is None:
        status = "running" if living(state.main) else "exited"
    return Container(
        id=spec.id,
        name=spec.name,
        status=status,
        labels=spec.labels,
        image=spec.image,
        exit_code=state.exit_code,
        restarts=state.restarts,
        error="",
        started_at=state.started_at or NEVER,
        ended_at=state.ended_at or NEVER,
    )
