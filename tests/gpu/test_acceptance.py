"""What of the acceptance run can be known without GPUs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gpu import results, shapes
from tests.gpu.engine import Sizes, numbers
from tests.gpu.machine import GIB
from tests.gpu.memory import filled
from tests.gpu.results import Row
from tests.gpu.shapes import Shape
from vllmray.model.model import model_of

# Of a run on two H100 with vLLM 0.25.1.
LOG = """\
(EngineCore pid=1) (RayWorkerProc pid=2) INFO [model_runner.py:302] Model loading took 65.74 GiB and 1.803796 seconds
(EngineCore pid=1) (RayWorkerProc pid=3) INFO [model_runner.py:302] Model loading took 65.7 GiB memory and 1.9 seconds
(EngineCore pid=1) INFO [kv_cache_utils.py:2146] GPU KV cache size: 35,456 tokens
INFO [gpu_worker.py:538] Available KV cache memory: 5.41 GiB
INFO [gpu_worker.py:553] The current --gpu-memory-utilization=0.9200 is equivalent to --gpu-memory-utilization=0.9135 \
without CUDA graph memory profiling. To
INFO [model_runner.py:722] Graph capturing finished in 10 secs, took 1.52 GiB
Actual usage is 65.74 GiB for weight, 1.15 GiB for peak activation, 0.54 GiB for non-torch memory, and 1.52 GiB
"""


def test_numbers_of_vllms_log_are_those_of_the_worker_that_has_most() -> None:
    assert numbers(LOG) == {
        "weights": 65.74,
        "load": 1.9,
        "room": 5.41,
        "tokens": 35456,
        "capture": 10,
        "graphs": 1.52,
        "counted": 0.9135,
        "activation": 1.15,
        "beyond torch": 0.54,
    }


@pytest.mark.parametrize(
    ("shape", "billions"),
    [(shapes.LLAMA_8B, 8.03), (shapes.LLAMA_70B, 70.6), (shapes.MIXTURE, 46.7), (shapes.LATENT, 15.7)],
)
def test_the_shapes_have_as_many_parameters_as_the_models_of_their_names(shape: Shape, billions: float) -> None:
    assert model_of(shape.config, shape.name).shape.parameters / 1e9 == pytest.approx(billions, rel=0.005)


def test_a_shape_that_fills_the_gpus_would_not_with_one_layer_more() -> None:
    made = filled(shapes.MIXTURE, 80 * GIB, Sizes(2, 1))
    weights = model_of(made.config, "x").shape.parameters * 2 / 2
    assert 0.6 * 80 * GIB < weights < 0.7 * 80 * GIB


def test_a_tokenizer_has_a_word_for_every_id_and_a_letter_for_every_byte(tmp_path: Path) -> None:
    folder = shapes.write(shapes.TINY, tmp_path)
    tokenizer = shapes._tokenizer(2048)
    assert sorted(tokenizer["model"]["vocab"].values()) == list(range(2048))
    assert {"Ġ", "a", "Ċ"} <= tokenizer["model"]["vocab"].keys()
    assert {path.name for path in folder.iterdir()} == {"config.json", "tokenizer.json", "tokenizer_config.json"}


def test_rows_of_a_later_run_replace_those_of_their_number_and_name_their_run(tmp_path: Path) -> None:
    kept, document = tmp_path / "results.json", tmp_path / "document.md"
    first = Row("4 dense", "memory", seen=["5 | 6"])
    second = Row("1 native", "one host", wrong=["no completion"])
    results.merge(kept, [first, second], {"name": "monday", "when": "2026-11-23", "GPUs": "2", "command": "x"})
    rows, runs = results.merge(kept, [Row("1 native", "one host")], {"name": "tuesday", "when": "y", "command": "z"})
    assert [(row.number, row.run, row.wrong) for row in rows] == [
        ("1 native", "tuesday", []),
        ("4 dense", "monday", []),
    ]
    assert [run["name"] for run in runs] == ["monday", "tuesday"]
    results.write(document, rows, runs)
    results.write(document, rows, runs)
    text = document.read_text()
    assert text.count("| 4 dense | memory | 5 / 6 | yes | monday |\n") == 1
    assert "- **monday**, 2026-11-23: GPUs 2. Made by\n\n      x\n" in text
