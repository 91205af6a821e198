"""The Host protocol, and the pure values that pass through it.

A host is where containers run. Everything that a use case needs of it goes through these verbs, so that a Docker
daemon, the processes of this machine and a fake are interchangeable; tests/contract holds each to the same behaviour.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

from vllmray.hosts.facts import HostInfo, Image
from vllmray.hosts.host_events import HostEvent

ContainerStatus = Literal["created", "running", "paused", "restarting", "removing", "exited", "dead"]

NO_NEW_PRIVILEGES = "no-new-privileges"
NEVER = "0001-01-01T00:00:00Z"
SHARED_MEMORY = "/dev/shm"  # nosec B108 # a mount point in containers
"""Where containers mount the volume in memory that they share; processes use this machine's own."""
LOG_OPTIONS = {"max-size": "50m", "max-file": "3"}
"""For Docker's log drivers json-file and local."""
SCRATCH = "/tmp"  # nosec B108 # of a container, a tmpfs of its own
# Without noexec, which is Docker's default for a tmpfs: programs that compile load what they wrote there.
SCRATCH_OPTIONS = "rw,exec,nosuid,nodev,mode=1777"


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder of the host (kind bind), a named volume in memory that containers share (kind memory), or a volume that
    is created and removed with the container (kind own).
    """

    kind: Literal["bind", "memory", "own"]
    source: str
    """An absolute path on the host, or the volume's name; own has none."""
    target: str
    read_only: bool = False
    create: bool = False
    """bind: make the folder when it is missing; otherwise a missing one is a HostError."""
    size: int | None = None
    """memory: at most this many bytes; None for half of the host's memory."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """memory and own: the volume's labels, by which prune finds it."""

    @property
    def memory_options(self) -> str:
        """memory: options of mount(8); mode 1777 so that any image's user writes."""
        return "mode=1777,nosuid,nodev" + (f",size={self.size}" if self.size else "")


@dataclass(frozen=True, slots=True)
class File:
    """A file to put into a container before it starts: absolute path, content, permission bits.

    It belongs to the user that the container runs as.
    """

    path: str
    content: bytes = field(repr=False)
    mode: int = 0o644
    secret: bool = False


@dataclass(frozen=True, slots=True)
class GpuRequest:
    """GPUs by the NVIDIA runtime or by CDI names, or for processes by number; device_ids empty and count -1 means all.

    Source: Docker Engine API, HostConfig.DeviceRequests. Driver "cdi" takes names such as "nvidia.com/gpu=0" and no
    count; the NVIDIA runtime takes either a count or ids.
    Driver "amd" is for processes alone: containers get AMD's GPUs as device files.
    """

    driver: Literal["nvidia", "cdi", "amd"]
    count: int = 0
    device_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """What one container is created with; it has no capabilities but those listed. Sizes in bytes."""

    name: str
    image: str
    argv: tuple[str, ...]
    """Entrypoint and arguments in one; the image's own entrypoint is not used."""
    user: str | None = None
    """UID:GID; None for the image's own user. Processes run as the user who starts them."""
    home: str | None = None
    """The user's home directory, created for it; below an own mount when read_only. Processes keep their user's own."""
    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    files: tuple[File, ...] = ()
    """With read_only, all below an own mount."""
    read_only: bool = False
    """The image's file system is read-only and /tmp a tmpfs. Ignored for processes, as are the capabilities."""
    network: str = "host"
    """host, container:NAME, or a network's name."""
    ip: str | None = None
    """Its address in that network."""
    pid: Literal["own", "host"] = "own"
    """The process namespace. Processes of this machine always have the host's."""
    shm_size: int | None = None
    """Of its own /dev/shm."""
    ulimits: Mapping[str, int] = field(default_factory=dict)
    """Soft and hard alike; -1 is unlimited."""
    devices: tuple[str, ...] = ()
    group_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ("ALL",)
    cap_add: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = (NO_NEW_PRIVILEGES,)
    gpus: GpuRequest | None = None
    restart: Literal["no", "unless-stopped"] = "no"
    """With a restart policy the log is rotated too, where the host keeps logs in files."""
    init: bool = True


@dataclass(frozen=True, slots=True)
class Container:
    """One container as it is now."""

    id: str
    name: str
    status: ContainerStatus
    labels: Mapping[str, str]
    image: str
    exit_code: int
    restarts: int
    """How often the restart policy started it again."""
    error: str
    """Why the last start failed, in the daemon's words; empty when it did not."""
    started_at: str
    """RFC 3339, or 0001-01-01T00:00:00Z when it never started."""
    ended_at: str = NEVER
    """When its program last ended, in the same form."""

    @property
    def ended_unix(self) -> float | None:
        """The last end in unix seconds, by the host's clock; None when it never ended."""
        return None if self.ended_at == NEVER else datetime.fromisoformat(self.ended_at).timestamp()

    @property
    def started_unix(self) -> float:
        """The last start in unix seconds, by the host's clock; below 0 when it never started."""
        return datetime.fromisoformat(self.started_at).timestamp()

    @property
    def ended(self) -> bool:
        """Its program is not running now, though it was started."""
        return self.status in ("exited", "dead", "restarting")


@dataclass(frozen=True, slots=True)
class BuildSpec:
    """What an image is made from."""

    dockerfile: str
    """The file's text."""
    arguments: Mapping[str, str] = field(default_factory=dict)
    """Values for its ARG lines."""
    context: Path | None = None
    """A folder of this machine with the files that it copies, less those of its .dockerignore; None for no files."""


@dataclass(frozen=True, slots=True)
class PullEvent:
    """Progress of one layer of a pull; total is None while unknown. Without a layer the status is of the whole pull."""

    layer: str
    status: str
    done: int = 0
    total: int | None = None


class Exec(Protocol):
    """A process started inside a running container, its standard input held open until close()."""

    def read_line(self, timeout: float) -> str | None:
        """The next line of its output without the line end; None when none came within timeout seconds.

        Raises:
            EOFError: the process ended and every line was read.
        """

    def close(self) -> None:
        """End its standard input and stop reading; further output is lost."""

    def exit_code(self) -> int | None:
        """None while it runs; the host may report it as running for a moment after the last line."""


class Lock(Protocol):
    """A named lock on a host: one command holds it at a time."""

    def close(self) -> None:
        """Release it, so that the next command gets it; errors are ignored."""


class Host(Protocol):
    """A place where containers run. Every verb raises HostError when the host does not answer."""

    @property
    def address(self) -> str:
        """How the user names it: unix:///var/run/docker.sock."""

    def ping(self) -> None:
        """Returns when the host answers, or raises, within a few seconds."""

    def info(self) -> HostInfo:
        """The host's runtime, CPUs and memory."""

    def shell(self, script: str, *, timeout: float) -> str | None:
        """The output of a POSIX shell script that runs on the host itself, not in a container, as who connects.

        None where only the host's daemon is in reach (tcp://, or one in a virtual machine).

        Raises:
            HostError: it ended with another exit code than 0, or not within that many seconds.
        """

    def image(self, name: str) -> Image | None:
        """The image of that name, or None when the host does not have it."""

    def pull(self, name: str) -> Iterator[PullEvent]:
        """Fetch an image from its registry; a failure inside the stream is a HostError too."""

    def build(self, spec: BuildSpec, tag: str) -> Iterator[str]:
        """Build an image; yields the build's output, line by line.

        Raises:
            HostError: a step failed (its output is in the details), or the host has no images.
        """

    def save(self, names: Sequence[str]) -> Iterator[bytes]:
        """Images of these names as one tar stream; layers that they share come once.

        Raises:
            HostError: an image is missing, the stream broke off, or the host has no images.
        """

    def load(self, stream: Iterator[bytes]) -> None:
        """Load what save yields; a stream that breaks off, or raises, leaves no image.

        Raises:
            HostError: the host refused it. What the stream raises passes through.
        """

    def create_and_start(self, spec: ContainerSpec) -> Container:
        """Create the container with its files in it, and start it; nothing is left of it when either fails.

        Raises:
            HostError: image missing, name taken, mount source missing, GPU runtime missing; argv[0] not in the image,
                unless the spec has an init, which is then started and ends with exit code 127.
        """

    def containers(self, labels: Mapping[str, str]) -> list[Container]:
        """Every container, running or not, that carries all these labels; an empty value asks for the key alone."""

    def exec(self, container: str, argv: tuple[str, ...]) -> Exec:
        """Start a process in a running container, with the container's environment and user."""

    def logs(
        self,
        container: str,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: float | None = None,
        stamped: bool = False,
    ) -> Iterator[str]:
        """Lines of the container's output, oldest first; following ends when the container does.

        Args:
            since: unix seconds; earlier lines are left out where the host knows when one was written.
            stamped: each line begins with its time (RFC 3339) and a space, where the host knows it.
        """

    def events(self, labels: Mapping[str, str], *, since: float | None) -> list[HostEvent]:
        """What happened to containers with all these labels, oldest first; also to those that are gone.

        A daemon keeps few of them, and the native runtime none (docker/events.py): what must be known later is in the
        containers' logs (journal.py). since: unix seconds; None for all that the host still has.
        """

    def restart(self, container: str, *, timeout: float) -> None:
        """Restart its program, with its files and volumes; one that is not running is started.

        One that runs gets SIGTERM first, and SIGKILL after timeout seconds. Its restart count is reset to 0.

        Raises:
            HostError: there is no such container, or its program does not start.
        """

    def stop_and_remove(self, container: str, *, timeout: float) -> None:
        """SIGTERM, SIGKILL after timeout seconds, then remove; no error when it is gone already."""

    def lock(self, name: str, image: str, labels: Mapping[str, str]) -> Lock:
        """Take the lock of that name, which one command on this host holds at a time.

        It is released when it is closed, and when the process that took it ends, however that ends. It is never listed
        among the nodes.

        Args:
            name: valid as a container's.
            image: one with Python that the host has.
            labels: who holds it, for the commands that wait.

        Raises:
            HeldError: another command holds it.
            HostError: no such image.
        """

    def break_lock(self, name: str) -> None:
        """Release a lock of any command, which is not told and goes on. No error when it is not held."""

    def make_network(self, name: str, labels: Mapping[str, str]) -> str:
        """A network of the host's own for containers, created unless it exists; returns its subnet (172.18.0.0/16).

        Containers can choose their address in it. A host without networks raises HostError.
        """

    def prune(self, labels: Mapping[str, str]) -> list[str]:
        """Remove every volume and network that carries all these labels; returns their names."""

    def close(self) -> None:
        """Close its connections."""
