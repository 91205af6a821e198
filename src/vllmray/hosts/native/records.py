"""What is kept of each node on disk, and nowhere else: its intent, its state, its log.

    <state folder>/native/<host name>/format                 the layout's number
    <state folder>/native/<host name>/nodes/<name>/spec.json    the intent, with the whole environment
                                                  /state.json   the state that its supervisor last wrote
                                                  /shared-memory.json
                                                  /log
                                                  /files/…      files that a container would have inside
    <state folder>/native/<host name>/volumes/<name>.json       folders that nodes share, each with its labels
                                     /locks/<name>              the labels of a lock's holder (lock.py)

By host name, since a home directory is often shared by the machines of a cluster.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from vllmray.errors import HostError
from vllmray.hosts.base import ContainerStatus
from vllmray.secure_files import PrivateFolder

FORMAT = "1"
DRAFT, GONE = ".draft-", ".gone-"


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """A ContainerSpec as a process of this machine: every path is this machine's, the environment is complete."""

    id: str
    name: str
    image: str
    """The Python whose environment it runs in."""
    argv: tuple[str, ...]
    env: Mapping[str, str]
    labels: Mapping[str, str]
    limits: Mapping[str, int]
    restart: bool
    init: bool
    paths: Mapping[str, str]
    """Each path of the container, with this machine's that replaces it."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process, so that a later one with the same number is not taken for it."""

    pid: int
    started: float
    """When, in seconds since the machine's boot, which setting the clock does not change."""
    boot: str
    """Which boot: the kernel's own id for it (random(4), /proc/sys/kernel/random/boot_id)."""


@dataclass(frozen=True, slots=True)
class NodeState:
    """What the supervisor knows of its node."""

    status: ContainerStatus = "created"
    exit_code: int = 0
    restarts: int = 0
    started_at: str = ""
    ended_at: str = ""
    main: Process | None = None
    """The node's own process, which leads a session; it is kept after its end, to find what it left behind."""
    supervisor: Process | None = None

    def becoming(self, **changes: Any) -> Self:
        return replace(self, **changes)


@dataclass(slots=True)
class SharedMemory:
    """Names in /dev/shm: those there before the node was, and those that its processes were seen to hold."""

    before: set[str] = field(default_factory=set)
    held: set[str] = field(default_factory=set)


class NodeFolder:
    """A node on disk. Every file is written whole, so that a reader never sees half of it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def log(self) -> Path:
        return self.path / "log"

    @property
    def files(self) -> Path:
        return self.path / "files"

    def spec(self) -> NodeSpec | None:
        """None while the node is being made, or when it is gone."""
        values = _read(self.path / "spec.json")
        return NodeSpec(**(values | {"argv": tuple(values["argv"])})) if values else None

    def write_spec(self, spec: NodeSpec) -> None:
        _write(self.path / "spec.json", asdict(spec))

    def state(self) -> NodeState:
        values: dict[str, Any] = _read(self.path / "state.json") or {}
        for key in ("main", "supervisor"):
            if values.get(key):
                values[key] = Process(**values[key])
        return NodeState(**values)

    def write_state(self, state: NodeState) -> None:
        _write(self.path / "state.json", asdict(state))

    def shared_memory(self) -> SharedMemory:
        values = _read(self.path / "shared-memory.json") or {}
        return SharedMemory(**{key: set(names) for key, names in values.items()})

    def write_shared_memory(self, memory: SharedMemory) -> None:
        _write(self.path / "shared-memory.json", {key: sorted(names) for key, names in asdict(memory).items()})

    def remove(self) -> None:
        """Out of sight at once, so that a removal cut short leaves nothing under the name."""
        gone = Path(tempfile.mkdtemp(prefix=GONE, dir=self.path.parent))
        with suppress(FileNotFoundError):
            self.path.rename(gone / "node")
        for left in self.path.parent.glob(GONE + "*"):
            shutil.rmtree(left, ignore_errors=True)


class Records:
    """The nodes and shared folders of this machine's user."""

    def __init__(self, state_folder: Path, host_name: str) -> None:
        self.root = state_folder / "native" / host_name
        self.locks = PrivateFolder(state_folder, "native", host_name, "locks")
        self._folders = [PrivateFolder(state_folder, "native", host_name, name) for name in ("nodes", "volumes")]
        self._nodes = self.root / "nodes"
        self._volumes = self.root / "volumes"

    def check(self) -> None:
        """Whether what lies there is this user's own, and this version's; nothing there is fine.

        Raises:
            ConfigError: a folder is a symbolic link, another user's, or others can write it.
            HostError: another version wrote it, or it can't be read.
        """
        for folder in self._folders:
            folder.check()
        try:
            found = (self.root / "format").read_text().strip()
        except FileNotFoundError:
            found = FORMAT if not self._nodes.exists() else "none"
        except OSError as error:
            raise HostError(f"can't read {self.root}: {error.strerror}", hint=_HINT) from error
        if found != FORMAT:
            raise HostError(
                f"{self.root} was written by another version of vllmray (its format is {found}, this one's {FORMAT})",
                hint="Take its nodes down with that version (vllmray down --all --runtime native), then move the "
                "folder away. Nothing in it was changed.",
            )

    def _prepare(self) -> None:
        self.check()
        mark = self.root / "format"
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not mark.exists():  # before the nodes, and atomically, for those who read meanwhile
                _write_text(mark, FORMAT + "\n")
            for folder in (self._nodes, self._volumes):
                folder.mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise HostError(f"can't write to {self.root}: {error.strerror}", hint=_HINT) from error

    def draft(self) -> NodeFolder:
        """A folder to write a node into, which nobody sees until it is published."""
        self._prepare()
        return NodeFolder(Path(tempfile.mkdtemp(prefix=DRAFT, dir=self._nodes)))

    def publish(self, draft: NodeFolder, name: str) -> NodeFolder | None:
        """The folder under its name; None, and the draft gone, when the name is taken."""
        try:
            draft.path.rename(self._nodes / name)
        except OSError:  # a folder that is not empty is never replaced (rename(2), ENOTEMPTY)
            shutil.rmtree(draft.path)
            return None
        return self.node(name)

    def nodes(self) -> Iterator[NodeFolder]:
        self.check()
        if self._nodes.is_dir():
            yield from (NodeFolder(path) for path in sorted(self._nodes.iterdir()) if not path.name.startswith("."))

    def node(self, name: str) -> NodeFolder:
        """The folder of that name, there or not."""
        return NodeFolder(self._nodes / name)

    def add_volume(self, name: str, path: Path, labels: Mapping[str, str]) -> None:
        self._prepare()
        _write(self._volumes / f"{name}.json", {"path": str(path), "labels": dict(labels)})

    def volumes(self) -> dict[str, tuple[Path, dict[str, str]]]:
        """By name: where the folder is, and its labels."""
        self.check()
        found = {path.stem: _read(path) for path in sorted(self._volumes.glob("*.json"))}
        return {name: (Path(values["path"]), values["labels"]) for name, values in found.items() if values}

    def forget_volume(self, name: str) -> None:
        (self._volumes / f"{name}.json").unlink(missing_ok=True)


_HINT = "The folder must be writable by you; XDG_STATE_HOME sets another place for it."


def _read(path: Path) -> dict[str, Any] | None:
    with suppress(FileNotFoundError):
        values: dict[str, Any] = json.loads(path.read_text())
        return values
    return None


def _write(path: Path, values: Mapping[str, Any]) -> None:
    _write_text(path, json.dumps(values))


def _write_text(path: Path, text: str) -> None:
    new = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    new.write_text(text)
    new.replace(path)
