"""What `plan` prints of a model, and what its JSON has, where a figure is not known."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from rich.console import Console

from tests.unit.model.test_config import raw
from tests.unit.support import RecordingReporter, config
from vllmray.cluster.spec.sizes import choose, ranked, resolve_sizes, why
from vllmray.model.layouts import HostGpus
from vllmray.model.memory import GIB
from vllmray.model.model import Model, model_of
from vllmray.output.envelope import plan_data
from vllmray.output.plan import plan_table

HOSTS = [HostGpus("host", (80 * GIB,) * 2)]
SETTINGS = config(max_model_len=4096, tensor_parallel_size="auto", pipeline_parallel_size="auto")


def unknown(checkpoint_bytes: int | None) -> Model:
    return model_of(raw("llama-3.1-8b") | {"attention_schedule": [1] * 32}, "odd", checkpoint_bytes)


def printed(model: Model) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(plan_table(model, HOSTS, ranked(model, SETTINGS, HOSTS), SETTINGS, every=False))
    return captured.get()


def test_the_table_says_that_the_cache_is_not_known_and_still_lists_layouts() -> None:
    said = printed(unknown(16 * GIB))
    assert "KV cache: not known for this model (attention_schedule is not understood); vLLM decides" in said
    assert "number of parameters not known" in said
    assert "weights: not known" not in said
    row = next(line.split() for line in said.splitlines() if line.startswith("1 "))
    assert row[:5] == ["1", "1", "1", "2", "16.0"]
    assert said.count("not known  not known") == 3
    assert "rejected" not in said


def test_weights_that_are_not_known_are_said_too() -> None:
    assert "weights: not known for this model (attention_schedule is not understood)" in printed(unknown(None))


@pytest.mark.parametrize(("checkpoint_bytes", "weights"), [(16 * GIB, 16 * GIB), (None, None)])
def test_in_json_what_is_not_known_is_null_with_its_reasons(checkpoint_bytes: int | None, weights: int | None) -> None:
    model = unknown(checkpoint_bytes)
    data = json.loads(json.dumps(asdict(plan_data(model, HOSTS, ranked(model, SETTINGS, HOSTS), SETTINGS))))
    reasons = ["attention_schedule is not understood"]
    assert data["kv_cache_unknown"] == reasons
    assert data["weights_unknown"] == ([] if weights else reasons)
    assert data["parameters"] is None
    single = next(each for each in data["layouts"] if each["tensor_parallel_size"] * len(each["stages"]) == 1)
    assert (single["sequences"], single["longest_context"], single["rejected"]) == (None, None, None)
    assert single["stages"][0]["weights"] == (pytest.approx(weights, rel=0.001) if weights else None)


def test_up_with_sizes_that_are_auto_takes_the_first_and_says_what_is_not_known() -> None:
    model = unknown(16 * GIB)
    _, layout = choose(model, SETTINGS, HOSTS)
    assert why(model, layout, SETTINGS) == (
        "tensor_parallel_size 1, pipeline_parallel_size 1: number of parameters not known, 16.0 GiB of weights a GPU, "
        "KV cache: not known for this model (attention_schedule is not understood); vLLM decides; the GPUs have room "
        "for 2 replicas"
    )


def test_up_with_stated_sizes_notes_what_is_not_known() -> None:
    reporter = RecordingReporter()
    resolve_sizes(unknown(16 * GIB), config(max_model_len=4096), (), reporter)
    assert any("KV cache: not known for this model" in line for line in reporter.lines)
