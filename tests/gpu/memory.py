"""3 and 4: shapes that fill the GPUs, as `plan` has them and as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tests.gpu.engine import Sizes, answers, engine, plan
from tests.gpu.results import Row
from tests.gpu.setting import Setting, nothing_left
from tests.gpu.shapes import Shape
from vllmray.model.memory import Engine as Settings
from vllmray.model.memory import stage_weights
from vllmray.model.model import model_of

WEIGHTS_GOAL, ROOM_GOAL = 0.05, 0.10
FILLED = 0.7
"""Of a GPU's memory by weights, for shapes that are sized to fill it."""


def filled(shape: Shape, memory: int, sizes: Sizes) -> Shape:
    """The shape with as many layers as fill so much of GPUs of that memory."""
    layers = 2

    def weights(count: int) -> int:
        made = model_of(shape.with_layers(count).config, shape.name).shape
        return stage_weights(
            made, made.layers, Settings(max_model_len=1), tensor_parallel_size=sizes.tensor, first=True, last=True
        )

    while weights(layers + 1) < FILLED * memory:
        layers += 1
    return shape.with_layers(layers)


def memory(setting: Setting, name: str, shape: Shape) -> list[Row]:
    """3 and 4: what `plan` says of a shape that fills the GPUs, and what they hold."""
    telling = replace(setting, environment={**setting.environment, "VLLM_LOGGING_LEVEL": "DEBUG"})
    place = telling.place(f"memory-{shape.name}")
    row = Row(f"4 {name}", f"memory of {shape.name} with {shape.layers} layers, TP {setting.one_host.tensor}")
    fits = Row("3", f"{shape.name} in bf16 over both GPUs")
    model = setting.model(shape)
    said = plan(place, model, setting.one_host, setting.after) if setting.is_real else {}
    if said.get("rejected"):
        fits.saw(f"plan: {said['rejected']}")
    elif said:
        fits.saw(f"plan: it fits, for {said['sequences']} sequences of 4096 tokens")
    with engine(place, model, setting.one_host, row, setting.after) as found:
        if found:
            answers(found, row)
            _compare(found.logged(), said, row)
            fits.saw(f"it serves, after {found.seconds:.1f} s")
        fits.must((found is not None) is not bool(said.get("rejected")), "plan and vLLM do not agree")
    fits.wrong += [] if found else row.wrong
    nothing_left(setting, row)
    return [row, fits] if name == "dense" else [row]


def _compare(logged: Mapping[str, float], said: Mapping[str, Any], row: Row) -> None:
    found = dict(logged)
    graphs = found.get("graphs", 0.0)
    if "room" in found and "counted" not in found:
        # Some versions and runners capture graphs into the memory that --gpu-memory-utilization leaves free; newer ones
        # (vllm 0.32, v1/worker/gpu_worker.py) take them from the sequences, as plan does.
        row.saw(f"vLLM's {found['room']:.2f} GiB for sequences do not count the graphs")
        found["room"] -= graphs
    for name, goal in (("weights", WEIGHTS_GOAL), ("room", ROOM_GOAL)):
        if name not in found or name not in said:
            row.must(not said, f"no word of vLLM about {name}")
            continue
        error = said[name] / found[name] - 1
        row.saw(f"{name}: plan {said[name]:.2f} GiB, vLLM {found[name]:.2f} GiB, {100 * error:+.1f} %")
        row.must(abs(error) <= goal, f"{name} is off by more than {100 * goal:.0f} %")
    parts = [f"{name} {found[name]:.2f}" for name in ("activation", "beyond torch", "graphs") if name in found]
    row.saw(f"beside the weights: plan {said.get('beside', 0):.2f} GiB, vLLM {', '.join(parts)}")
