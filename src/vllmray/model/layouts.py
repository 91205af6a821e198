"""Every parallel layout of a model on the given GPUs, best first; impossible ones are listed with the reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from vllmray.model.memory import GIB, Engine, StageMemory, element_bytes, usable
from vllmray.model.model import Model
from vllmray.model.partition import even_partition, partition_by_room
from vllmray.model.rules import Parallelism, broken_rules, tensor_problems

SPARE = 0.2
"""The share of a GPU's memory to leave for the KV cache if a model's cache size is not known."""
ROOMY = 16
"""Sequences of max_model_len that a layout should hold at once: with fewer, requests wait for each other."""
LONGEST = 1 << 24


@dataclass(frozen=True, slots=True)
class HostGpus:
    """The GPUs of a host."""

    name: str
    memory: tuple[int, ...]
    """Bytes of each."""
    share: float | None = None
    """With unified memory, the largest gpu_memory_utilization that leaves the host its reserve."""

    @property
    def summary(self) -> str:
        """As in "2 x 80 GiB"."""
        sizes = sorted(set(self.memory))
        return " and ".join(f"{self.memory.count(size)} x {size / GIB:.0f} GiB" for size in sizes)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a pipeline stage can be: GPUs of one host, or of several where that is allowed."""

    host: str
    memory: int
    """Bytes of the smallest of its GPUs."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A parallel layout of the model, possible or rejected."""

    tensor_parallel_size: int
    pipeline_parallel_size: int
    rejected: str = ""
    """Why it is rejected; empty if it can serve."""
    places: tuple[Place, ...] = ()
    """Of its stages."""
    replicas: int = 0
    """How many replicas fit on the GPUs."""
    partition: tuple[int, ...] = ()
    """Layers of each stage."""
    is_even: bool = True
    """Whether vLLM divides them so by default; otherwise it needs VLLM_PP_LAYER_PARTITION."""
    stages: tuple[StageMemory, ...] = ()
    sequences: int | None = 0
    """Of max_model_len tokens at once; negative when the weights don't fit, None when it is not known."""
    longest_context: int | None = 0
    """Tokens of one sequence that has the memory for itself, at most the model's own limit; None when not known."""
    network_bytes: int = 0
    """Bytes sent between hosts for each token."""

    @property
    def world_size(self) -> int:
        """GPUs of one replica."""
        return self.tensor_parallel_size * self.pipeline_parallel_size


def layouts(
    model: Model, hosts: Sequence[HostGpus], engine: Engine, asked: Parallelism, *, across: bool
) -> list[Layout]:
    """All of them: those that can serve, the best first, then the others.

    The best has room for 16 sequences, then the fewest stages, then the fewest GPUs, so that the others carry replicas:
    the order in which vLLM's own guide adds GPUs (vllm, docs/serving/parallelism_scaling.md: one GPU, tensor
    parallelism in a host, then a pipeline over hosts). Where the KV cache of a sequence is not known, the weights alone
    decide: a fifth of each GPU should be left. Where they are not known either, the most GPUs come first.

    Args:
        hosts: the head's first: its GPUs carry the first stages.
        asked: everything but the two sizes, of which all are tried.
        across: a stage may have GPUs of several hosts.
    """
    total = sum(len(host.memory) for host in hosts)
    found: list[Layout] = []
    for size in range(1, total + 1):
        found += _of_size(model, hosts, engine, replace(asked, tensor_parallel_size=size), across=across)
    return sorted(found, key=_rank)


def _rank(layout: Layout) -> tuple[float, ...]:
    return (
        bool(layout.rejected),
        0 if layout.rejected else _crowding(layout),
        layout.pipeline_parallel_size,
        layout.world_size,
    )


def _crowding(layout: Layout) -> float:
    """How far a layout is from having enough room for the KV cache; 0 when it has enough."""
    if layout.sequences is not None:
        return max(ROOMY - layout.sequences, 0)
    rooms = [stage.room / stage.memory for stage in layout.stages if stage.room is not None]
    return max(SPARE - min(rooms), 0) if rooms else -layout.world_size


def places_for(hosts: Sequence[HostGpus], tensor_parallel_size: int, *, across: bool) -> list[Place]:
    """Where stages of that many GPUs can be, host by host; on a host the GPUs with the most memory go together."""
    if across:
        hosts = [HostGpus("+".join(host.name for host in hosts), tuple(each for host in hosts for each in host.memory))]
    places = []
    for host in hosts:
        memory = sorted(host.memory, reverse=True)
        ends = range(tensor_parallel_size, len(memory) + 1, tensor_parallel_size)
        places += [Place(host.name, memory[end - 1]) for end in ends]
    return places


def _of_size(
    model: Model, hosts: Sequence[HostGpus], engine: Engine, asked: Parallelism, *, across: bool
) -> Iterator[Layout]:
    """Every pipeline of stages of that size; where there can be none, one layout that says why."""
    size = asked.tensor_parallel_size
    problems = tensor_problems(model.shape, asked)
    if problems:
        yield Layout(size, 1, f"tensor_parallel_size {size} {problems[0]}")
        return
    places = places_for(hosts, size, across=across and size > max(len(host.memory) for host in hosts))
    if not places:
        total = sum(len(host.memory) for host in hosts)
        yield Layout(size, total // size, _spanning(model, engine, size, max(len(host.memory) for host in hosts)))
    for count in range(1, len(places) + 1):
        yield layout_on(model, places, engine, replace(asked, pipeline_parallel_size=count))


def _spanning(model: Model, engine: Engine, size: int, most: int) -> str:
    sent = _reduced_bytes(model, engine) / 1e6
    return (
        f"a stage of {size} GPUs would span hosts, which have {most} at most: two all-reduces a layer over the "
        f"network, {sent:.1f} MB a token (--allow-tp-across-hosts)"
    )


def _reduced_bytes(model: Model, engine: Engine) -> int:
    """What a stage's GPUs exchange a token: two sums a layer (vllm, RowParallelLinear), each way once."""
    config = model.shape.config
    return 2 * 2 * len(model.shape.layers) * config.hidden_size * element_bytes(config, engine)


def layout_on(model: Model, available: Sequence[Place], engine: Engine, asked: Parallelism) -> Layout:
    """The layout of those sizes, on the first of these places."""
    size, count = asked.tensor_parallel_size, asked.pipeline_parallel_size
    places = tuple(available[:count])
    bare = Layout(size, count, places=places, replicas=len(available) // count)
    broken = broken_rules(model.shape, model.longest_context, asked)
    if broken:
        return replace(bare, rejected="; ".join(str(each) for each in broken))
    partition, is_even = _partition(model, places, engine, asked)
    stages = tuple(
        model.stage(partition, at, engine, tensor_parallel_size=size, memory=place.memory)
        for at, place in enumerate(places)
    )
    layout = replace(
        bare,
        partition=partition,
        is_even=is_even,
        stages=stages,
        sequences=_least([stage.sequences(engine.max_model_len) for stage in stages]),
        longest_context=_longest(stages, model.longest_context or LONGEST),
        network_bytes=_network_bytes(model, places, engine, size),
    )
    return replace(layout, rejected=_memory_problem(layout, engine))


def _partition(
    model: Model, places: Sequence[Place], engine: Engine, asked: Parallelism
) -> tuple[tuple[int, ...], bool]:
    """(layers of each stage, whether vLLM divides them so by itself)."""
    count = len(places)
    even = even_partition(len(model.shape.layers), count)
    if asked.layer_partition:
        return asked.layer_partition, asked.layer_partition == even
    if len({place.memory for place in places}) == 1:
        return even, True
    size = asked.tensor_parallel_size
    probes = [
        model.stage(even, at, engine, tensor_parallel_size=size, memory=place.memory) for at, place in enumerate(places)
    ]
    middle = probes[count // 2]
    if middle.weights is None:
        return even, True
    each = middle.weights / middle.layers
    rooms = [(probe.room or 0) + each * probe.layers for probe in probes]
    kept = middle.kept.bytes_of(engine.max_model_len, middle.batch) / middle.layers if middle.kept else 0
    chosen = partition_by_room(len(model.shape.layers), rooms, each, kept) or even
    return chosen, chosen == even


def _least(counts: Sequence[int | None]) -> int | None:
    """The smallest; None when one is not known, unless another is negative already."""
    known = [count for count in counts if count is not None]
    return min(known) if len(known) == len(counts) or (known and min(known) < 0) else None


def _longest(stages: Sequence[StageMemory], limit: int) -> int | None:
    """The length in tokens of the longest sequence that fits; 0 when none does, None when that is not known."""
    lowest, highest = 0, limit
    if _least([stage.sequences(1) for stage in stages]) is None:
        return None
    while lowest < highest:
        middle = (lowest + highest + 1) // 2
        if all((stage.sequences(middle) or 0) >= 1 for stage in stages):
            lowest = middle
        else:
            highest = middle - 1
    return lowest


def _network_bytes(model: Model, places: Sequence[Place], engine: Engine, size: int) -> int:
    """A token's hidden state and residual, at each step from one host to another (vllm, IntermediateTensors)."""
    config = model.shape.config
    steps = sum(1 for place, following in pairwise(places) if place.host != following.host)
    within = _reduced_bytes(model, engine) if any("+" in place.host for place in places) and size > 1 else 0
    return steps * 2 * config.hidden_size * element_bytes(config, engine) + within


def _memory_problem(layout: Layout, engine: Engine) -> str:
    """Why it does not fit, by the estimate; empty if it fits or the sizes are not known."""
    if layout.sequences is None or layout.sequences >= 1 or (engine.chooses_length and layout.longest_context):
        return ""
    stage = min(layout.stages, key=lambda each: each.sequences(engine.max_model_len) or 0)
    takes = usable(stage.memory, engine) / GIB
    if stage.room is None or stage.weights is None:
        return ""
    if stage.room <= 0:
        taken = f"weights of {stage.weights / GIB:.1f} GiB and overhead of about {stage.overhead / GIB:.1f} GiB"
        return f"{taken} do not fit into {takes:.1f} GiB of a GPU"
    if layout.longest_context == 0:
        return f"{stage.room / GIB:.2f} GiB a GPU are left for the KV cache, too little for a sequence"
    return f"a sequence of {engine.max_model_len} tokens does not fit: about {layout.longest_context} would"
