"""What Ray says of the cluster, as values: the lines of watch.py, read."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

EnginePhase = Literal["importing", "waiting", "starting", "ready", "given-up", "insecure"]


class NodeStatus(BaseModel):
    """One Ray node that is alive. Counts of GPUs may be fractions in Ray."""

    model_config = ConfigDict(frozen=True)

    id: str
    ip: str | None
    """None where Ray gave only text."""
    is_head: bool
    gpus_total: float
    gpus_used: float


class EngineState(BaseModel):
    """What launch.py says it is doing; times are unix seconds on the head's host."""

    model_config = ConfigDict(frozen=True)

    phase: EnginePhase
    detail: str = ""
    since: float
    deaths: int = 0
    """How many servers ended by themselves since the container was started."""
    missing_since: float | None = None
    """Since when GPUs that were there are missing; None when none are."""


class RayStatus(BaseModel):
    """One observation of the cluster: either Ray's answer, or the error in its place."""

    model_config = ConfigDict(frozen=True)

    nodes: tuple[NodeStatus, ...] = ()
    pending: tuple[str, ...] = ()
    source: Literal["sdk", "text", "none"] = "none"
    shortfall: str | None = None
    """What the engine still lacks; empty when nothing, None when it was not asked."""
    local_node_id: str | None = None
    engine: EngineState | None = None
    error: str | None = None
    """Why Ray did not answer."""

    def said_after(self, start: float) -> Self:
        """Without the word of an engine from before that time: its file outlives its container.

        Args:
            start: of the container that runs now, in unix seconds.
        """
        return self.model_copy(update={"engine": None}) if self.engine and self.engine.since < start else self

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


def parse_line(line: str) -> RayStatus | None:
    """A line of watch.py; None for anything else that got into its output."""
    try:
        return RayStatus.model_validate_json(line)
    except ValidationError:
        return None
