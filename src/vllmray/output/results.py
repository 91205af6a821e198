"""The results of commands in plain values: what --json prints, and what docs/schemas describes (scripts/schemas).

Sizes are bytes, times are unix seconds, unless a field says otherwise. A field that is removed or changes its
meaning raises envelope.SCHEMA_VERSION; further ones do not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from pydantic import ConfigDict


class _Result:
    __pydantic_config__: ClassVar = ConfigDict(use_attribute_docstrings=True, extra="forbid")


@dataclass(frozen=True)
class Failure(_Result):
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
class Up(_Result):
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
class Progress(_Result):
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
class HostModel(_Result):
    """A model on a host."""

    host: str
    whole: bool
    """Every file is there, and after `verify` every byte is right."""
    revision: str
    """The commit; empty where there is none, or for a folder."""
    size: int
    """Bytes."""
    wrong: list[str]


@dataclass(frozen=True)
class ModelFiles(_Result):
    """`model pull`, `model ls` and `model verify`."""

    model: str
    hosts: list[HostModel]


@dataclass(frozen=True)
class RemovedModel(_Result):
    """`model rm`: the bytes that were removed, by host."""

    model: str
    removed: dict[str, int]


@dataclass(frozen=True)
class Written(_Result):
    """`init` and `import`: the cluster file that was written."""

    file: str
    hosts: list[str]
    notices: list[str]
    """What was not taken over, and why."""


@dataclass(frozen=True)
class Plan(_Result):
    """`up --dry-run`: what would be started."""

    cluster: str
    role: str
    summary: dict[str, str]
    commands: list[str]
    """Command lines that do the same: docker run for containers, env for processes."""


@dataclass(frozen=True)
class Gpus(_Result):
    """GPUs of a cluster, counted. Ray's counts may be fractions."""

    wanted: int | None
    total: float | None
    used: float | None


@dataclass(frozen=True)
class GpuMemory(_Result):
    """A GPU of the host that was asked."""

    index: int
    name: str
    used: int
    total: int


@dataclass(frozen=True)
class Node(_Result):
    """A Ray node that is alive."""

    id: str
    ip: str | None
    is_head: bool
    gpus_total: float
    gpus_used: float


@dataclass(frozen=True)
class Engine(_Result):
    """The engine's own state."""

    phase: str
    detail: str
    since: float
    deaths: int
    missing_since: float | None


@dataclass(frozen=True)
class Container(_Result):
    """A container of the cluster on the host that was asked."""

    name: str
    status: str
    exit_code: int
    restarts: int
    image: str
    started_at: str
    """RFC 3339."""


@dataclass(frozen=True)
class HostStatus(_Result):
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
class Status(_Result):
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
class Event(_Result):
    """Something that happened."""

    at: float
    where: str
    kind: str
    text: str


@dataclass(frozen=True)
class Events(_Result):
    """`events`: oldest first; with --follow one in each envelope."""

    cluster: str
    host: str
    events: list[Event]


@dataclass(frozen=True)
class PlannedHost(_Result):
    """A host with the memory of its GPUs."""

    name: str
    gpus: list[int]


@dataclass(frozen=True)
class Stage(_Result):
    """A pipeline stage; sizes are of each of its GPUs."""

    host: str
    layers: int
    weights: int | None
    beside: int | None
    """Overhead: activations, graphs, communication buffers."""
    room: int | None
    """What is left for the KV cache."""


@dataclass(frozen=True)
class Layout(_Result):
    """A pair of parallel sizes, and what it gives."""

    tensor_parallel_size: int
    pipeline_parallel_size: int
    rejected: str | None
    """Why it does not fit; null for one that does."""
    replicas: int
    layer_partition: list[int]
    sequences: int | None
    longest_context: int | None
    network_bytes_a_token: float
    stages: list[Stage]


@dataclass(frozen=True)
class Layouts(_Result):
    """`plan`: the layouts, the best first."""

    model: str
    parameters: int | None
    kv_cache_unknown: list[str]
    weights_unknown: list[str]
    checkpoint_bytes: int | None
    longest_context: int | None
    max_model_len: int
    hosts: list[PlannedHost]
    layouts: list[Layout]


@dataclass(frozen=True)
class Restart(_Result):
    """`restart`"""

    cluster: str
    host: str
    restarted: list[str]
    ready: bool
    """False with --no-wait."""


@dataclass(frozen=True)
class Down(_Result):
    """`down`"""

    cluster: str | None
    """null with --all."""
    removed: list[str]
    """Names of containers."""


@dataclass(frozen=True)
class Logs(_Result):
    """`logs`: oldest first; with --follow one line in each envelope."""

    cluster: str
    host: str
    lines: list[str]


@dataclass(frozen=True)
class Bundle(_Result):
    """`logs --bundle`"""

    bundle: str
    """The file that was written."""
    missing: list[str]
    """What could not be read, and why."""


@dataclass(frozen=True)
class Chat(_Result):
    """`chat PROMPT`"""

    model: str
    answer: str
    stopped: list[str]
    """Why the answer is incomplete; empty when it is complete."""


@dataclass(frozen=True)
class Key(_Result):
    """`key`"""

    cluster: str
    keys: list[str]


@dataclass(frozen=True)
class Token(_Result):
    """`token`"""

    cluster: str
    token: str


@dataclass(frozen=True)
class Rotation(_Result):
    """`token rotate`"""

    cluster: str
    worker_command: str
    """What to type on each other host, once the new token is there."""


@dataclass(frozen=True)
class Dashboard(_Result):
    """`dashboard`"""

    url: str


@dataclass(frozen=True)
class Demo(_Result):
    """`demo`"""

    cluster: str
    runtime: str
    endpoint: str
    question: str
    answer: str
    removed: bool


@dataclass(frozen=True)
class BuiltImage(_Result):
    """`image build`"""

    image: str


@dataclass(frozen=True)
class CopiedImage(_Result):
    """`image copy`"""

    image: str
    source: str
    targets: list[str]


@dataclass(frozen=True)
class ImageContents(_Result):
    """`image inspect`: what an image contains, with versions of Python distributions; null for what it does not."""

    id: str
    contents: str
    """A digest of its layers and configuration, the same on every host; empty in the native runtime."""
    reference: str
    """Its digest in a registry where it has one, else its id."""
    entrypoint: list[str]
    user: str
    versions: dict[str, str | None]
    python: str
    cuda: str | None
    nccl: str | None
    nccl_sha256: str | None
    ray_command: str | None
    machine: str


@dataclass(frozen=True)
class Versions(_Result):
    """`version`; docker is the Docker SDK."""

    vllmray: str
    python: str
    docker: str | None
    typer: str | None
    pydantic: str | None
    platform: str
