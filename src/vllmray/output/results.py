"""The results of commands in plain values: what --json prints, and what docs/schemas describes (scripts/schemas).

Sizes are bytes, times are unix seconds, unless a field says otherwise. A field that is removed or changes its
meaning raises envelope.SCHEMA_VERSION; further ones do not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from pydantic import ConfigDict


class Result:
    """Of a command."""

    __pydantic_config__: ClassVar = ConfigDict(use_attribute_docstrings=True, extra="forbid")


@dataclass(frozen=True)
class Failure(Result):
    """An error, in the place of a result."""

    code: int
    """The exit code."""
    message: str
    details: str | None
    """Another program's own words, or one line a problem."""
    hint: str | None
    """What to do next."""
    log: str | None = None
    """The file with this run's log, for errors that should be reported."""


@dataclass(frozen=True)
class Up(Result):
    """`up`: the node that was started or found."""

    cluster: str
    host: str
    role: str
    ready: bool
    """False with --no-wait."""
    node_ip: str
    head_ip: str
    endpoint: str | None
    """The URL of the endpoint, of a head."""
    header_file: str | None
    """A file with the header that has the API key, of a head whose endpoint requires one."""
    certificate_file: str | None
    """The endpoint's certificate, where no public authority signed it."""
    worker_command: str
    """What to type on each other host."""


@dataclass(frozen=True)
class Progress(Result):
    """`up` of a cluster file's hosts, while it goes on: one event, one line."""

    at: float
    host: str | None
    """The host's name in the cluster file; None for what is about all of them."""
    phase: str | None
    event: str
    """begin, done or failed of a phase on a host; step, result, note or warning within it."""
    text: str
    seconds: float | None
    """How long the phase took there."""


@dataclass(frozen=True)
class Written(Result):
    """`init` and `import`: the cluster file that was written."""

    file: str
    hosts: list[str]
    notices: list[str]
    """What was not taken over, and why."""


@dataclass(frozen=True)
class Plan(Result):
    """`up --dry-run`: what would be started."""

    cluster: str
    role: str
    summary: dict[str, str]
    commands: list[str]
    """Command lines that do the same: docker run for containers, env for processes."""


@dataclass(frozen=True)
class Gpus(Result):
    """GPUs of a cluster, counted. Ray's counts may be fractions."""

    wanted: int | None
    total: float | None
    used: float | None


@dataclass(frozen=True)
class GpuMemory(Result):
    """A GPU of the host that was asked."""

    index: int
    name: str
    used: int
    total: int


@dataclass(frozen=True)
class Node(Result):
    """A Ray node that is alive."""

    id: str
    ip: str | None
    is_head: bool
    gpus_total: float
    gpus_used: float


@dataclass(frozen=True)
class Engine(Result):
    """The engine's own state."""

    phase: str
    detail: str
    since: float
    deaths: int
    missing_since: float | None


@dataclass(frozen=True)
class Container(Result):
    """A container of the cluster on the host that was asked."""

    name: str
    status: str
    exit_code: int
    restarts: int
    image: str
    started_at: str
    """RFC 3339."""


@dataclass(frozen=True)
class HostStatus(Result):
    """A host of the cluster file."""

    name: str
    address: str
    role: str
    reached: bool
    ready: bool
    """Head: the endpoint serves. Worker: the head lists its node alive."""
    state: str
    """ready, or why it is not."""
    containers: list[str]


@dataclass(frozen=True)
class Status(Result):
    """`status`: a cluster as seen from one of its hosts."""

    cluster: str
    host: str
    role: str
    ready: bool
    problem: str | None
    """Why it is not ready."""
    since: float | None
    endpoint: str | None
    gpus: Gpus
    gpu_memory: list[GpuMemory]
    nodes: list[Node]
    pending: list[str]
    engine: Engine | None
    containers: list[Container]
    hosts: list[HostStatus] = field(default_factory=list)
    """All hosts, where there is a cluster file; empty where one host was asked."""


@dataclass(frozen=True)
class Event(Result):
    """Something that happened."""

    at: float
    where: str
    kind: str
    text: str


@dataclass(frozen=True)
class Events(Result):
    """`events`: oldest first; with --follow one in each envelope."""

    cluster: str
    host: str
    events: list[Event]


@dataclass(frozen=True)
class Restart(Result):
    """`restart`"""

    cluster: str
    host: str
    restarted: list[str]
    ready: bool
    """False with --no-wait."""


@dataclass(frozen=True)
class Down(Result):
    """`down`"""

    cluster: str | None
    """null with --all."""
    removed: list[str]
    """Names of containers."""


@dataclass(frozen=True)
class Logs(Result):
    """`logs`: oldest first; with --follow one line in each envelope."""

    cluster: str
    host: str
    lines: list[str]


@dataclass(frozen=True)
class Bundle(Result):
    """`logs --bundle`"""

    bundle: str
    """The file that was written."""
    missing: list[str]
    """What could not be read, and why."""


@dataclass(frozen=True)
class Chat(Result):
    """`chat PROMPT`"""

    model: str
    answer: str
    stopped: list[str]
    """Why the answer is incomplete; empty when it is complete."""


@dataclass(frozen=True)
class Key(Result):
    """`key`"""

    cluster: str
    keys: list[str]


@dataclass(frozen=True)
class Token(Result):
    """`token`"""

    cluster: str
    token: str


@dataclass(frozen=True)
class Rotation(Result):
    """`token rotate`"""

    cluster: str
    worker_command: str
    """What to type on each other host, once the new token is there."""


@dataclass(frozen=True)
class Dashboard(Result):
    """`dashboard`"""

    url: str


@dataclass(frozen=True)
class Demo(Result):
    """`demo`"""

    cluster: str
    runtime: str
    endpoint: str
    question: str
    answer: str
    removed: bool


@dataclass(frozen=True)
class Versions(Result):
    """`version`; docker is the Docker SDK."""

    vllmray: str
    python: str
    docker: str | None
    typer: str | None
    pydantic: str | None
    platform: str
