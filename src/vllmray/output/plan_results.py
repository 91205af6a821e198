"""The result of `plan`; as those in results.py."""

from __future__ import annotations

from dataclasses import dataclass

from vllmray.output.results import Result


@dataclass(frozen=True)
class PlannedHost(Result):
    """A host with the memory of its GPUs."""

    name: str
    gpus: list[int]


@dataclass(frozen=True)
class Stage(Result):
    """A pipeline stage; sizes are of each of its GPUs."""

    host: str
    layers: int
    weights: int | None
    beside: int | None
    """Overhead: activations, graphs, communication buffers."""
    room: int | None
    """What is left for the KV cache."""


@dataclass(frozen=True)
class Layout(Result):
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
class Layouts(Result):
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
