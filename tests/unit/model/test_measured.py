"""Estimates beside what vLLM took on two NVIDIA H100 (docs/gpu-acceptance.md: vllm 0.25.1, tensor parallel size 2)."""

from __future__ import annotations

import pytest

from tests.gpu import shapes
from tests.gpu.shapes import Shape
from vllmray.model.layouts import Place, layout_on
from vllmray.model.memory import GIB, Engine
from vllmray.model.model import model_of
from vllmray.model.rules import Parallelism

H100 = 81559 * 1024**2
"""As nvidia-smi says."""


@pytest.mark.parametrize(
    ("shape", "layers", "weights", "room"),
    [
        # room: vLLM's "Available KV cache memory", less the graphs where it did not count them.
        (shapes.LLAMA_8B, 32, 7.54, 63.93 - 0.72),
        (shapes.LLAMA_70B, 80, 65.74, 5.41 - 1.52),
        (shapes.MIXTURE, 41, 55.67, 14.85),
        (shapes.LATENT, 102, 55.73, 15.54 - 2.37),
    ],
)
def test_weights_are_within_5_percent_and_what_is_left_within_10(
    shape: Shape, layers: int, weights: float, room: float
) -> None:
    model = model_of(shape.with_layers(layers).config, shape.name)
    sizes = Parallelism(tensor_parallel_size=2, pipeline_parallel_size=1, max_model_len=4096)
    (stage,) = layout_on(model, [Place("host", H100)], Engine(max_model_len=4096), sizes).stages
    assert (stage.weights or 0) / GIB == pytest.approx(weights, rel=0.05)
    assert (stage.room or 0) / GIB == pytest.approx(room, rel=0.10)
