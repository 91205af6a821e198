"""A model: its shape, its limits, and the size of its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from vllmray.model.config import read_config
from vllmray.model.layers import Shape, shape_of
from vllmray.model.limits import longest_context
from vllmray.model.memory import (
    Engine,
    StageMemory,
    kept_of,
    overhead_beyond_weights,
    room_for_sequences,
    stage_weights,
)
from vllmray.model.sections import text_section
from vllmray.model.understood import unknown_keys


@dataclass(frozen=True)
class Model:
    """What is known of a model."""

    name: str
    shape: Shape
    longest_context: int | None
    """Tokens."""
    checkpoint_bytes: int | None = None
    """Of all its weights as they are stored; None when not known, and then they follow from the shape alone."""
    given_correction: float | None = None
    """For a model that is quantised while it is loaded: the correction, measured on the unquantised checkpoint."""

    @property
    def knows_weights(self) -> bool:
        """Whether the size of the weights follows from the shapes, or is known from the files."""
        return not self.shape.weights_unknown or self.checkpoint_bytes is not None or self.given_correction is not None

    @cached_property
    def correction(self) -> float:
        """The checkpoint's bytes over those that follow from the shape: other parts of a multimodal model, layers that
        are stored and not used, quantisation that config.json describes only in part.
        """
        if self.given_correction or self.checkpoint_bytes is None:
            return self.given_correction or 1.0
        stored = Engine(max_model_len=1, dtype=self.shape.config.dtype or "bfloat16")
        return self.checkpoint_bytes / stage_weights(self.shape, self.shape.layers, stored, first=True, last=True)

    def stage(
        self, partition: Sequence[int], stage: int, engine: Engine, *, tensor_parallel_size: int, memory: int
    ) -> StageMemory:
        """A GPU of a stage, with the layers divided so.

        Args:
            memory: bytes of the GPU.
        """
        begin = sum(partition[:stage])
        layers = self.shape.layers[begin : begin + partition[stage]]
        first, last, config = stage == 0, stage == len(partition) - 1, self.shape.config
        batch = engine.batch(memory)
        size = tensor_parallel_size
        weights = stage_weights(self.shape, layers, engine, tensor_parallel_size=size, first=first, last=last)
        held = max(int(weights * self.correction) - engine.cpu_offload_bytes, 0)
        known_weights = held if self.knows_weights else None
        overhead = overhead_beyond_weights(
            config, engine, batch, layers=len(layers), tensor_parallel_size=size, last=last
        )
        return StageMemory(
            layers=len(layers),
            memory=memory,
            weights=known_weights,
            overhead=overhead,
            room=None if known_weights is None else room_for_sequences(memory, engine, held=known_weights + overhead),
            kept=None if self.shape.kv_unknown else kept_of(layers, config, engine, tensor_parallel_size=size),
            batch=batch,
        )


def model_of(raw: Mapping[str, Any], name: str, checkpoint_bytes: int | None = None) -> Model:
    """The model that a config.json describes.

    Raises:
        ConfigError: lists each field that is missing or invalid.
    """
    config = read_config(raw, name)
    shape = shape_of(config, unknown_keys(text_section(raw), config))
    return Model(name, shape, longest_context(raw), checkpoint_bytes)


def parameters_of(model: Model) -> str:
    """The number of parameters in words."""
    if model.shape.weights_unknown:
        return "number of parameters not known"
    return f"{model.shape.parameters / 1e9:.1f} B parameters"


def unknown_figures(model: Model) -> list[str]:
    """A line for each figure that is not known of this model, with the reasons; none when all are."""
    figures = [("KV cache", model.shape.kv_unknown)]
    if not model.knows_weights:
        figures.append(("weights", model.shape.weights_unknown))
    return [f"{name}: not known for this model ({', '.join(why)}); vLLM decides" for name, why in figures if why]
