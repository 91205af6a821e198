"""The names and shapes that both sides know: programs in containers write them as JSON, and the command reads them.

Standard library only, like all that is copied into containers. The command validates what it reads against the types
here (pydantic takes dataclasses as they are).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Self

ROOT = Path(__file__).parents[3]
"""The folder of a container below which site/, where this package lies, and secrets/ are; means nothing elsewhere."""

RAY = ("-P", "-m", "ray.scripts.scripts")
"""What the program `ray` runs, as arguments of a Python that has Ray (ray 2.60, setup.py, console_scripts). Such a
Python need not have that program on its PATH, or has another Python's there; without -P a folder `ray` of the working
directory would go first.
"""
ANOTHER_CLUSTER = "WrongClusterID"
"""As Ray's client says it (src/ray/rpc/rpc_callback_types.h)."""
GATE_SETTINGS = ("tensor_parallel_size", "pipeline_parallel_size", "allow_tp_across_hosts")
"""The settings that are keyword arguments of watch.shortfall."""
CPU_SLOTS_SWITCH = "VLLMRAY_CPU_SLOTS"
"""The variable that turns the vLLM plugin for simulated GPUs on, with 1."""
GUARD_SETTINGS = "VLLMRAY_GUARD"
"""The variable with what is no secret of the guard: {"keyed": bool, "allow_routes": [path]}, JSON."""
FRESH_S = 10.0
"""Older than this, what launch.py wrote of the engine is not believed; it writes every 2 s."""

EnginePhase = Literal["importing", "waiting", "starting", "ready", "given-up", "insecure"]


@dataclass(frozen=True)
class NodeStatus:
    """One Ray node that is alive. Counts of GPUs may be fractions in Ray."""

    id: str
    ip: str | None
    """None where Ray gave only text."""
    is_head: bool
    gpus_total: float
    gpus_used: float


@dataclass(frozen=True, kw_only=True)
class EngineState:
    """What launch.py says it is doing; times are unix seconds on the head's host."""

    phase: EnginePhase
    detail: str = ""
    since: float
    deaths: int = 0
    """How many servers ended by themselves since the container was started."""
    missing_since: float | None = None
    """Since when GPUs that were there are missing; None when none are."""


@dataclass(frozen=True)
class RayStatus:
    """One observation of the cluster, a line of watch.py: either Ray's answer, or the error in its place."""

    nodes: tuple[NodeStatus, ...] = ()
    pending: tuple[str, ...] = ()
    source: Literal["sdk", "text", "none"] = "none"
    shortfall: str | None = None
    """What the engine still lacks; empty when nothing, None when it was not asked."""
    local_node_id: str | None = None
    actors: int | None = None
    """How many actors of vLLM are alive; None where it was not asked, or Ray does not tell."""
    engine: EngineState | None = None
    error: str | None = None
    """Why Ray did not answer."""

    def said_after(self, start: float) -> Self:
        """Without the word of an engine from before that time: its file outlives its container.

        Args:
            start: of the container that runs now, in unix seconds.
        """
        return replace(self, engine=None) if self.engine and self.engine.since < start else self

    @property
    def gpus_total(self) -> float:
        """GPUs of all nodes alive."""
        return sum(node.gpus_total for node in self.nodes)

    @property
    def gpus_used(self) -> float:
        """GPUs taken by actors and placement groups."""
        return sum(node.gpus_used for node in self.nodes)

    def node(self, ip: str) -> NodeStatus | None:
        """The node with that address; where Ray gave no addresses, the one whose raylet runs beside the reader."""
        for node in self.nodes:
            if node.ip == ip or (node.ip is None and node.id == self.local_node_id):
                return node
        return None


UNIFIED_RESERVE = 8 * 1024**3
"""Bytes of memory that GPU and host share which are left to the host: its system, Ray, and vLLM's processes there."""


@dataclass(frozen=True)
class Card:
    """One GPU that a node was given, or a MIG device; bytes."""

    id: str
    """As nvidia-smi numbers it there."""
    uuid: str
    name: str
    total: int
    """What CUDA tells a program."""
    free: int
    unified: bool = False
    """It has no memory of its own: total and free are the host's."""

    @property
    def size(self) -> int:
        """What an engine can count on."""
        return self.total - UNIFIED_RESERVE if self.unified else self.total


@dataclass(frozen=True)
class GpuProcess:
    """A process with memory on a GPU."""

    gpu: str
    """The GPU's UUID."""
    pid: int
    user: str
    """Empty when it is not known; so is program."""
    program: str
    memory: int | None
    """Bytes."""


@dataclass(frozen=True)
class CacheAccess:
    """The model cache as the image's user finds it."""

    writable: bool
    user: str
    """UID:GID of the image's user."""
    fresh: bool
    """Empty and root's: made by the daemon a moment ago."""


@dataclass(frozen=True)
class HostAnswer:
    """What probes/host.py answers of a host."""

    node_ip: str = ""
    interface: str = ""
    problem: str | None = None
    taken: Mapping[str, int] = field(default_factory=dict)
    forbidden: Mapping[str, int] = field(default_factory=dict)
    """Ports that the nodes' user may not listen on."""
    gpus: int = 0
    cards: tuple[Card, ...] = ()
    """The GPUs; empty when their memory could not be told."""
    connect: str | None = None
    cache: CacheAccess | None = None
    gpu_devices: tuple[str, ...] = ()
    """How this host gives GPUs, as gpus.device_access takes it; filled in by who asked."""

    @property
    def gpu_memory(self) -> tuple[int, ...]:
        """Bytes of each GPU; empty when that could not be told."""
        return tuple(card.size for card in self.cards)


@dataclass(frozen=True)
class Software:
    """What probes/image.py answers: the software that a node made from an image would have."""

    versions: Mapping[str, str | None] = field(default_factory=dict)
    """Of installed distributions, by name; None for one that is not."""
    python: str = ""
    cuda: str | None = None
    """What torch was built for; None without."""
    nccl: str | None = None
    nccl_sha256: str | None = None
    """Of the library's file: two builds of one version are told apart by it alone."""
    ray_command: str | None = None
    """The file of Ray's command line, which nodes run as a module (RAY above); None when that Python has no Ray."""
