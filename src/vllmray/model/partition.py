"""How the layers of a model are divided into pipeline stages."""

from __future__ import annotations

from collections.abc import Sequence

MOST_SEQUENCES = 4096


def even_partition(layers: int, stages: int) -> tuple[int, ...]:
    """Layers of each stage as vLLM divides them: what is left over goes to the stages before the last, backwards.

    Source: vllm 0.32 and 0.33, vllm/distributed/utils.py, get_pp_indices.
    """
    each, left = divmod(layers, stages)
    return tuple(each + (1 if 2 <= stages - stage <= left + 1 else 0) for stage in range(stages))


def parse_partition(text: str) -> tuple[int, ...]:
    """VLLM_PP_LAYER_PARTITION, "20,20,24".

    Raises:
        ValueError: not whole numbers with commas between them.
    """
    return tuple(int(part) for part in text.split(","))


def partition_by_room(layers: int, rooms: Sequence[float], weights: float, sequence: float) -> tuple[int, ...] | None:
    """Layers of stages that have unequal memory: in proportion to how many each can hold, with room for sequences.

    Args:
        rooms: bytes of each stage's GPU for layers and their sequences.
        weights: bytes of a layer, on average.
        sequence: bytes that a layer keeps of a sequence.

    Returns None when the layers do not fit.
    """
    lowest, highest = 0, MOST_SEQUENCES
    if sum(_capacities(rooms, weights)) < layers or layers < len(rooms):
        return None
    while lowest < highest:  # the most sequences with which all layers still fit
        middle = (lowest + highest + 1) // 2
        if sum(_capacities(rooms, weights + middle * sequence)) >= layers:
            lowest = middle
        else:
            highest = middle - 1
    capacities = _capacities(rooms, weights + lowest * sequence)
    shares = [layers * capacity / sum(capacities) for capacity in capacities]
    partition = [max(int(share), 1) for share in shares]
    while sum(partition) != layers:
        step = 1 if sum(partition) < layers else -1
        stage = max(
            (stage for stage, count in enumerate(partition) if count + step >= 1),
            key=lambda stage: step * (shares[stage] - partition[stage]),
        )
        partition[stage] += step
    return tuple(partition)


def _capacities(rooms: Sequence[float], each: float) -> list[int]:
    return [max(int(room // each), 0) for room in rooms]
