"""A Host in memory: containers are records, and programs are Python functions.

It knows the few programs that the contract suite runs (echo, cat, printenv, stat, id, sleep, false, true), so that the
same suite holds it and the real hosts; tests of use cases add programs of their own. What it does not know it refuses.
"""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from vllmray.errors import HeldError, HostError, NoGpuRuntimeError
from vllmray.hosts.base import BuildSpec, Container, ContainerSpec, ContainerStatus, Exec, Lock, PullEvent
from vllmray.hosts.facts import HostInfo, Image
from vllmray.hosts.host_events import HostAction, HostEvent


@dataclass(frozen=True, slots=True)
class Ran:
    """What a program printed, and how it ended; None when it goes on running."""

    lines: tuple[str, ...] = ()
    exit_code: int | None = 0


FIRST_START = "1970-01-01T00:00:00+00:00"
"""Of every container; a restart comes ten seconds after the one before."""

Program = Callable[["Record", tuple[str, ...]], Ran]
Stream = Callable[["Record", tuple[str, ...]], Iterator[str | None]]


@dataclass(slots=True)
class Record:
    """One container."""

    spec: ContainerSpec
    container: Container
    log: list[str] = field(default_factory=list)

    def becomes(self, status: ContainerStatus, **changes: object) -> None:
        """Change its state, as time or another person would."""
        self.container = replace(self.container, status=status, **changes)  # type: ignore[arg-type]


def _echo(record: Record, argv: tuple[str, ...]) -> Ran:
    return Ran((" ".join(argv[1:]),))


def _cat(record: Record, argv: tuple[str, ...]) -> Ran:
    for file in record.spec.files:
        if file.path == argv[1]:
            return Ran(tuple(file.content.decode().splitlines()))
    return Ran((f"cat: {argv[1]}: No such file or directory",), 1)


def _stat(record: Record, argv: tuple[str, ...]) -> Ran:
    """`stat -c "%a %u" PATH`: a file's mode and owner."""
    assert argv[1:3] == ("-c", "%a %u")
    if argv[3].startswith("/proc/") and record.spec.pid == "host":
        return Ran((f"555 {os.getuid()}",))
    for file in record.spec.files:
        if file.path == argv[3]:
            return Ran((f"{file.mode:o} {_user(record)}",))
    return Ran((f"stat: cannot statx '{argv[3]}': No such file or directory",), 1)


def _printenv(record: Record, argv: tuple[str, ...]) -> Ran:
    home = {"HOME": record.spec.home} if record.spec.home else {}
    value = {**record.spec.env, **home}.get(argv[1])
    return Ran((value,)) if value is not None else Ran((), 1)


def _user(record: Record) -> str:
    return (record.spec.user or "0").partition(":")[0]


def _id(record: Record, argv: tuple[str, ...]) -> Ran:  # every program gets them
    return Ran((_user(record),))


def _not_found(record: Record, argv: tuple[str, ...]) -> Ran:
    return Ran((f"{argv[0]} not found",), 127)


BUILT_IN: dict[str, Program] = {
    "echo": _echo,
    "cat": _cat,
    "printenv": _printenv,
    "stat": _stat,
    "id": _id,
    "true": lambda record, argv: Ran(),
    "false": lambda record, argv: Ran((), 1),
    "sleep": lambda record, argv: Ran((), None),
}


class FakeExec:
    """The lines of a program; None in the stream stands for a moment without news."""

    def __init__(self, lines: Iterator[str | None], exit_code: int | None = 0) -> None:
        self._lines = lines
        self._exit_code = exit_code
        self.closed = False

    def read_line(self, timeout: float) -> str | None:
        try:
            return next(self._lines)
        except StopIteration:
            raise EOFError from None

    def close(self) -> None:
        self.closed = True

    def exit_code(self) -> int | None:
        return self._exit_code


class FakeLock:
    """Held until it is closed or broken."""

    def __init__(self, locks: dict[str, FakeLock], name: str, labels: Mapping[str, str]) -> None:
        self._locks = locks
        self._name = name
        self.labels = labels

    def close(self) -> None:
        if self._locks.get(self._name) is self:
            del self._locks[self._name]


class FakeHost:
    """See the module."""

    def __init__(self, images: Iterable[str] = ("image:1",), folders: Iterable[str] = ()) -> None:
        self.address = "fake://host"
        self.images = {name: _image(name) for name in images}
        self.builds: dict[str, BuildSpec] = {}
        self.registry: dict[str, list[PullEvent]] = {}
        self.folders = set(folders)
        self.cdi_devices: tuple[str, ...] = ()
        self.gpu_runtime = True
        self.rootless = False
        self.boot_command: str | None = None
        self.architecture = "amd64"
        self.records: dict[str, Record] = {}
        self.created: list[ContainerSpec] = []
        """Also what is gone again."""
        self.volumes: dict[str, Mapping[str, str]] = {}
        self.networks: dict[str, Mapping[str, str]] = {}
        self.subnets: dict[str, str] = {}
        self.locks: dict[str, FakeLock] = {}
        self.asked_for_locks: list[str] = []
        """Of every lock that was asked for, whether it was "taken" or "held", and the name."""
        self.stuck: set[str] = set()
        """Names of containers that do not go."""
        self.programs: dict[str, Program] = dict(BUILT_IN)
        self.streams: dict[str, Stream] = {}
        self.scripts: dict[str, str | None] = {}
        """The output of shell scripts, besides echo; of all others it is an error."""
        self.calls: list[str] = []
        self.happened: list[HostEvent] = []
        self._starts = itertools.count(10, 10)
        self._ids = itertools.count(1)

    def ping(self) -> None:
        pass

    def info(self) -> HostInfo:
        return HostInfo(
            *("Docker 29.0", 8, 64 * 1024**3),
            architecture=self.architecture,
            rootless=self.rootless,
            host_network=not self.rootless,
            boot_command=self.boot_command,
            cdi_devices=self.cdi_devices,
        )

    def shell(self, script: str, *, timeout: float) -> str | None:
        if script in self.scripts:
            return self.scripts[script]
        if script.startswith("echo "):
            return script.removeprefix("echo ") + "\n"
        raise HostError(f"{self.address}: a shell script failed with exit code 1")

    def image(self, name: str) -> Image | None:
        return self.images.get(name)

    def pull(self, name: str) -> Iterator[PullEvent]:
        if name not in self.registry:
            raise HostError(f"{self.address}: could not pull {name}")
        yield from self.registry[name]
        self.images[name] = _image(name)

    def build(self, spec: BuildSpec, tag: str) -> Iterator[str]:
        said = [text.strip() for text in re.findall(r"echo ([^&>\n]+)", spec.dockerfile)]
        yield from said
        if spec.dockerfile.endswith("false"):
            details = "\n".join([*said, "returned a non-zero code"])
            raise HostError(f"{self.address}: could not build {tag}", details=details)
        self.images[tag] = _image(tag)
        self.builds[tag] = spec
        self.calls.append(f"build {tag}")

    def save(self, names: Sequence[str]) -> Iterator[bytes]:
        self.calls.append(f"save {' '.join(names)}")
        for name in names:
            if name not in self.images:
                raise HostError(f"{self.address}: there is no image {name}")
            yield f"{name} {self.images[name].id}\n".encode()

    def load(self, stream: Iterator[bytes]) -> None:
        taken = b"".join(stream).decode()
        if not taken.endswith("\n"):
            raise HostError(f"{self.address}: could not load the image", details="unexpected EOF")
        for name, image_id in (line.split() for line in taken.splitlines()):
            self.images[name] = replace(_image(name), id=image_id)
        self.calls.append("load")

    def create_and_start(self, spec: ContainerSpec) -> Container:
        self._refuse(spec)
        self.created.append(spec)
        container = Container(
            id=f"{next(self._ids):064x}",
            name=spec.name,
            status="running",
            labels=spec.labels,
            image=spec.image,
            exit_code=0,
            restarts=0,
            error="",
            started_at=FIRST_START,
        )
        record = Record(spec, container)
        for mount in spec.mounts:
            if mount.kind == "memory":
                self.volumes[mount.source] = mount.labels
            elif mount.create:
                self.folders.add(mount.source)
        self._run(record)
        self.records[container.id] = record
        self.calls.append(f"start {spec.name}")
        return record.container

    def _run(self, record: Record) -> None:
        self.tell(record, "start")
        program = self.programs.get(record.spec.argv[0], _not_found)
        ran = program(record, record.spec.argv)
        record.log += ran.lines
        if ran.exit_code is not None:
            self._end(record, ran.exit_code)

    def tell(
        self, record: Record, action: HostAction, *, exit_code: int | None = None, signal: int | None = None
    ) -> None:
        """What a daemon would remember, as of now."""
        labels = record.container.labels
        self.happened.append(HostEvent(time.time(), record.container.name, action, labels, exit_code, signal))

    def _refuse(self, spec: ContainerSpec) -> None:
        if spec.image not in self.images:
            raise HostError(f"{self.address}: no image {spec.image}")
        if spec.gpus and spec.gpus.driver == "nvidia" and not self.gpu_runtime:
            raise NoGpuRuntimeError(f"{self.address}: no GPU runtime")
        if any(record.container.name == spec.name for record in self.records.values()):
            raise HostError(f"{self.address}: {spec.name} is taken")
        for mount in spec.mounts:
            if mount.kind == "bind" and not mount.create and mount.source not in self.folders:
                raise HostError(f"{self.address}: no folder {mount.source}")
        for path in [file.path for file in spec.files] + ([spec.home] if spec.home else []):
            if spec.read_only and not any(
                path.startswith(f"{own.target}/") for own in spec.mounts if own.kind == "own"
            ):
                raise HostError(f"{self.address}: nothing can be put at {path}, which can't be written")
        if spec.argv[0] not in self.programs and not spec.init:
            raise HostError(f"{self.address}: no program {spec.argv[0]}")

    def _end(self, record: Record, exit_code: int) -> None:
        self.tell(record, "die", exit_code=exit_code)
        if record.spec.restart == "no":
            record.becomes("exited", exit_code=exit_code, ended_at=datetime.now(UTC).isoformat())
        else:
            self.tell(record, "start")
            self.tell(record, "die", exit_code=exit_code)
            record.becomes("restarting", exit_code=exit_code, restarts=1, ended_at=datetime.now(UTC).isoformat())

    def _stop(self, record: Record) -> None:
        if record.container.status == "running":
            self.tell(record, "kill", signal=15)
            self.tell(record, "die", exit_code=143)
            self.tell(record, "stop")

    def containers(self, labels: Mapping[str, str]) -> list[Container]:
        return [record.container for record in self.records.values() if _carries(record.container.labels, labels)]

    def exec(self, container: str, argv: tuple[str, ...]) -> Exec:
        record = self._record(container)
        if record.container.status != "running":
            raise HostError(f"{self.address}: {record.container.name} is not running")
        stream = self.streams.get(argv[0])
        if stream:
            return FakeExec(stream(record, argv))
        if argv[0] not in self.programs:
            raise HostError(f"{self.address}: no program {argv[0]}")
        ran = self.programs[argv[0]](record, argv)
        lines = iter(ran.lines) if ran.exit_code is not None else itertools.repeat(None)
        return FakeExec(iter(lines), ran.exit_code)

    def logs(
        self,
        container: str,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: float | None = None,
        stamped: bool = False,
    ) -> Iterator[str]:
        log = self._record(container).log
        lines = log[-tail:] if tail else log if tail is None else []
        return iter([f"{FIRST_START} {line}" for line in lines] if stamped else lines)

    def events(self, labels: Mapping[str, str], *, since: float | None) -> list[HostEvent]:
        return [event for event in self.happened if event.at >= (since or 0) and _carries(event.labels, labels)]

    def restart(self, container: str, *, timeout: float) -> None:
        record = self._record(container)
        self._stop(record)
        record.becomes(
            "running", exit_code=0, restarts=0, started_at=datetime.fromtimestamp(next(self._starts), UTC).isoformat()
        )
        self._run(record)
        self.tell(record, "restart")
        self.calls.append(f"restart {record.container.name}")

    def stop_and_remove(self, container: str, *, timeout: float) -> None:
        try:
            record = self._record(container)
        except HostError:
            return
        if record.container.name in self.stuck:
            raise HostError(f"{self.address}: could not stop {container}", details="it does not die")
        self._stop(record)
        del self.records[record.container.id]
        self.calls.append(f"remove {record.container.name}")

    def lock(self, name: str, image: str, labels: Mapping[str, str]) -> Lock:
        if image not in self.images:
            raise HostError(f"{self.address}: no image {image}")
        held = self.locks.get(name)
        self.asked_for_locks.append(f"{'held' if held else 'taken'} {name}")
        if held:
            raise HeldError(f"{name} is taken", labels=held.labels)
        self.locks[name] = FakeLock(self.locks, name, labels)
        return self.locks[name]

    def break_lock(self, name: str) -> None:
        self.locks.pop(name, None)

    def make_network(self, name: str, labels: Mapping[str, str]) -> str:
        self.networks.setdefault(name, labels)
        return self.subnets.setdefault(name, f"172.{18 + len(self.subnets)}.0.0/16")

    def prune(self, labels: Mapping[str, str]) -> list[str]:
        removed = []
        for kept in (self.volumes, self.networks):
            for name in [name for name, carried in kept.items() if _carries(carried, labels)]:
                del kept[name]
                removed.append(name)
        return removed

    def close(self) -> None:
        pass

    def _record(self, container: str) -> Record:
        for record in self.records.values():
            if container in (record.container.id, record.container.name):
                return record
        raise HostError(f"{self.address}: no container {container}")

    def named(self, name: str) -> Record:
        """A container's record, by its name."""
        return self._record(name)


def _image(name: str) -> Image:
    return Image(id=f"sha256:{name}", size=1, user="", architecture="amd64")


def _carries(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(key in labels and value in ("", labels[key]) for key, value in wanted.items())
