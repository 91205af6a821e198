"""Names and types shared by both sides: programs in containers write them as JSON, and the command reads them.

Standard library only, like all that is copied into containers. The command validates what it reads against the types
here (pydantic accepts dataclasses as they are).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Self

ROOT = Path(__file__).parents[3]
"""In a container, the folder with site/, which holds this package, and secrets/; meaningless elsewhere."""

RAY = ("-P", "-m", "ray.scripts.scripts")
"""The entry point of the program `ray`, as arguments of a Python that has Ray (ray 2.60, setup.py, console_scripts).
The `ray` on the PATH may be missing, or another Python's; without -P a folder `ray` in the working directory would be
imported instead.
"""
ANOTHER_CLUSTER = "WrongClusterID"
"""In the error of Ray's client for a GCS of another cluster (src/ray/rpc/rpc_callback_types.h)."""
GATE_SETTINGS = ("tensor_parallel_size", "pipeline_parallel_size", "allow_tp_across_hosts")
"""The settings that are keyword arguments of watch.shortfall."""
CPU_SLOTS_SWITCH = "VLLMRAY_CPU_SLOTS"
"""The variable that enables the vLLM plugin for simulated GPUs, with 1."""
GUARD_SETTINGS = "VLLMRAY_GUARD"
"""The variable with the guard's settings that are not secret: {"keyed": bool, "allow_routes": [path]}, JSON."""
FRESH_S = 10.0
"""An engine state file with an older heartbeat is stale; launch.py writes every 2 s."""

EnginePhase = Literal["importing", "waiting", "starting", "ready", "given-up", "insecure"]


@dataclass(frozen=True)
class NodeStatus:
    """One Ray node that is alive. Ray's counts of GPUs may be fractions."""

    id: str
    ip: str | None
    """None where Ray gave only text."""
    is_head: bool
    gpus_total: float
    gpus_used: float


@dataclass(frozen=True, kw_only=True)
class EngineState:
    """The engine's state as launch.py wrote it; times are unix seconds on the head's host."""

    phase: EnginePhase
    detail: str = ""
    since: float
    deaths: int = 0
    """How many servers exited unexpectedly since the container was started."""
    missing_since: float | None = None
    """Since when GPUs that the engine had are missing; None when none are."""


@dataclass(frozen=True)
class RayStatus:
    """One observation of the cluster, a line of watch.py: either Ray's answer, or the error in its place."""

    nodes: tuple[NodeStatus, ...] = ()
    pending: tuple[str, ...] = ()
    source: Literal["sdk", "text", "none"] = "none"
    shortfall: str | None = None
    """The GPUs that the engine still lacks, in words; empty when none, None when it was not asked for."""
    local_node_id: str | None = None
    actors: int | None = None
    """How many of vLLM's actors are alive; None where it was not asked for, or Ray does not report it."""
    engine: EngineState | None = None
    error: str | None = None
    """Why Ray did not answer."""

    def said_after(self, start: float) -> Self:
        """The same without an engine state from before that time: the state file outlives its container.

        Args:
            start: when the container that runs now was started, in unix seconds.
        """
        return replace(self, engine=None) if self.engine and self.engine.since < start else self

    @property
    def gpus_total(self) -> float:
        """GPUs of all nodes alive."""
        return sum(node.gpus_total for node in self.nodes)

    @property
    def gpus_used(self) -> float:
        """GPUs used by actors and placement groups."""
        return sum(node.gpus_used for node in self.nodes)

    def node(self, ip: str) -> NodeStatus | None:
        """The node with that address; where Ray gave no addresses, the one in whose container watch.py runs."""
        for node in self.nodes:
            if node.ip == ip or (node.ip is None and node.id == self.local_node_id):
                return node
        return None


@dataclass(frozen=True)
class Card:
    """One GPU that a node was given, or a MIG device; bytes."""

    id: str
    """Its index in nvidia-smi there."""
    uuid: str
    name: str
    total: int
    """As CUDA reports it to a program."""
    free: int
    unified: bool = False
    """Unified memory: total and free are the host's."""


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
class Swap:
    """The host's swap space; bytes."""

    total: int
    used: int


@dataclass(frozen=True)
class Gid:
    """One address of an RDMA port on Ethernet (RoCE)."""

    index: int
    address: str
    """IPv4 where it stands for one, else IPv6."""
    kind: str
    """RoCE v2, or IB/RoCE v1."""


@dataclass(frozen=True)
class RdmaPort:
    """One port of an RDMA device (HCA), as /sys/class/infiniband tells of it."""

    device: str
    port: int
    state: str
    """ACTIVE, DOWN, INIT, ARMED …"""
    link_layer: str
    """Ethernet (RoCE) or InfiniBand."""
    rate: float = 0.0
    """Gbit/s."""
    interfaces: tuple[str, ...] = ()
    """Network interfaces on that port; a bond and a VLAN too."""
    adapter: str = ""
    """The adapter's own id (sys_image_guid), which all its devices have."""
    pci: str = ""
    """Its PCI address: 0002:01:00.0."""
    gids: tuple[Gid, ...] = ()


@dataclass(frozen=True)
class CacheAccess:
    """Access of the image's user to the model cache."""

    writable: bool
    user: str
    """UID:GID of the image's user."""
    fresh: bool
    """Empty and owned by root: the daemon has just created it."""


@dataclass(frozen=True)
class HostAnswer:
    """The answer of probes/host.py about a host."""

    node_ip: str = ""
    interface: str = ""
    problem: str | None = None
    taken: Mapping[str, int] = field(default_factory=dict)
    forbidden: Mapping[str, int] = field(default_factory=dict)
    """Ports that the nodes' user may not listen on."""
    gpus: int = 0
    cards: tuple[Card, ...] = ()
    """The GPUs; empty when their memory could not be determined."""
    connect: str | None = None
    cache: CacheAccess | None = None
    swap: Swap | None = None
    rdma: tuple[RdmaPort, ...] = ()
    gpu_devices: tuple[str, ...] = ()
    """How this host gives containers access to GPUs, as gpus.device_access takes it; filled in by the caller."""

    @property
    def gpu_memory(self) -> tuple[int, ...]:
        """Bytes of each GPU; empty when that could not be told."""
        return tuple(card.total for card in self.cards)


@dataclass(frozen=True)
class Software:
    """The answer of probes/image.py: the software that a node made from an image would have."""

    versions: Mapping[str, str | None] = field(default_factory=dict)
    """Of installed distributions, by name; None for one that is not."""
    python: str = ""
    cuda: str | None = None
    """The CUDA version that torch was built for; None without."""
    nccl: str | None = None
    nccl_sha256: str | None = None
    """Of the library's file: the only difference between two builds of one version."""
    ray_command: str | None = None
    """The file of Ray's command line, which nodes run as a module (RAY above); None when that Python has no Ray."""
    machine: str = ""
    """The architecture that its programs run on, as the kernel names it: x86_64, aarch64."""
