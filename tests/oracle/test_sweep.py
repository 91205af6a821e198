"""Every architecture that vLLM registers, each with a configuration: vLLM refuses, weighs and keeps what we say.

tests/data/architectures.json has the configurations (list_architectures.py makes it). An architecture is in agreement,
or is not known to the product, which says so and is listed here with its reason, or has no configuration to be had.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.oracle.conftest import Ask
from tests.oracle.list_architectures import LEFT_OUT
from vllmray.errors import ConfigError
from vllmray.model.layouts import HostGpus, layouts
from vllmray.model.memory import GIB, Engine, kept_of, stage_weights, token_bytes
from vllmray.model.model import Model, model_of
from vllmray.model.partition import even_partition
from vllmray.model.rules import Parallelism, broken_rules

ARCHITECTURES: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent.parent / "data" / "architectures.json").read_text()
)
ORACLE_ARGUMENTS = ("--sweep",)
ENGINE = Engine(max_model_len=1024)
HOSTS = [HostGpus(name, (80 * GIB,) * 4) for name in ("a", "b")]
LAYOUTS = ((4, 1), (1, 2))
"""(tensor_parallel_size, pipeline_parallel_size); of two stages the last is weighed, and the first too where a family
has on each what others have on one. One GPU is asked about where the others are refused.
"""
CROSSED = "CrossAttentionSpec"
"""Kept once for all that an encoder has made."""
UNKNOWN: dict[str, str] = {
    "BailingMoeV2_5ForCausalLM": "groups of layers with lightning attention",
    "BailingMoeV3ForCausalLM": "Kimi's delta attention under other names",
    "BailingMoeV3VLForConditionalGeneration": "Kimi's delta attention under other names",
    "EmbeddingGemma2Model": "embeddings of each layer, layers of unlike widths",
    "HrmTextForCausalLM": "stacks of layers that are gone through several times",
    "IQuestLoopCoderForCausalLM": "layers that are gone through several times, with a cache for each time",
    "InklingForCausalLM": "windows, convolutions and experts under names of its own",
    "InklingForConditionalGeneration": "windows, convolutions and experts under names of its own",
    "LongcatFlashForCausalLM": "two attentions in each layer, experts without weights",
    "MiniMaxM3SparseForCausalLM": "sparse attention with an index of its own",
    "Qwen4ExpForCausalLM": "hyper-connections and embeddings of each layer",
    "Qwen4ExpForConditionalGeneration": "hyper-connections and embeddings of each layer",
    "SarvamMLAForCausalLM": "latent attention of a family that is not known to have it",
    "Step3TextForCausalLM": "queries that heads share",
    "Step3VLForConditionalGeneration": "queries that heads share",
    "Step3p5ForCausalLM": "experts under names of its own",
}
"""What the product says it does not know, and why."""
BUGS = {"'PPMissingLayer' object has no attribute": "ERNIE 4.5 MoE in several stages: a bug of vllm 0.32"}
"""What vLLM refuses through no rule: its words, and what is wrong."""


def known_of(architecture: str) -> Model:
    """The model of its configuration."""
    return model_of(ARCHITECTURES[architecture]["config"], architecture)


def is_unknown(architecture: str) -> bool:
    """The product says that it does not know a figure."""
    try:
        shape = known_of(architecture).shape
    except ConfigError:
        return True
    return bool(shape.kv_unknown or shape.weights_unknown)


@pytest.mark.parametrize("architecture", sorted(set(ARCHITECTURES) - set(UNKNOWN)))
def test_vllm_refuses_weighs_and_keeps_what_we_say(ask: Ask, architecture: str) -> None:
    model = known_of(architecture)
    assert not is_unknown(architecture), (model.shape.kv_unknown, model.shape.weights_unknown)
    taken = [agree(ask, architecture, model, Parallelism(*sizes)) for sizes in LAYOUTS]
    assert any(taken) or agree(ask, architecture, model, Parallelism())


def agree(ask: Ask, architecture: str, model: Model, asked: Parallelism) -> bool:
    """Whether both take the layout; fails where one does, or where the figures are not the same."""
    ours = [str(broken) for broken in broken_rules(model.shape, model.longest_context, asked)]
    theirs = ask_shard(ask, architecture, asked)
    if any(words in theirs.get("message", "") for words in BUGS):
        return False
    assert theirs["ok"] == (not ours), f"{asked}: we say {ours}, vLLM says {theirs}"
    if theirs["ok"]:
        assert_same_figures(model, theirs, asked)
        if asked.pipeline_parallel_size > 1 and model.shape.begins_everywhere:
            assert_same_figures(model, ask_shard(ask, architecture, asked, first=True), asked, first=True)
    return bool(theirs["ok"])


def ask_shard(ask: Ask, architecture: str, asked: Parallelism, *, first: bool = False) -> dict[str, Any]:
    """What vLLM makes of the last stage, or the first."""
    entry = ARCHITECTURES[architecture]
    return ask(
        do="shard",
        config=entry["config"],
        language_model_only=entry.get("language_model_only", False),
        tensor_parallel_size=asked.tensor_parallel_size,
        pipeline_parallel_size=asked.pipeline_parallel_size,
        rank=0 if first else (asked.pipeline_parallel_size - 1) * asked.tensor_parallel_size,
    )


def assert_same_figures(model: Model, theirs: dict[str, Any], asked: Parallelism, *, first: bool = False) -> None:
    """Weights of the language model to a percent; keys, values and states to the byte."""
    shape, size, stages = model.shape, asked.tensor_parallel_size, asked.pipeline_parallel_size
    partition = even_partition(len(shape.layers), stages)
    layers = shape.layers[: partition[0]] if first else shape.layers[-partition[-1] :]
    ends = {"first": first or stages == 1, "last": not first}
    weights = stage_weights(shape, layers, ENGINE, tensor_parallel_size=size, **ends)
    assert weights == pytest.approx(theirs["language_bytes"], rel=0.01), asked
    attending = sum(token_bytes(layer, shape.config, ENGINE, tensor_parallel_size=size) for layer in layers)
    cached = [entry for entry in theirs["kv"] if entry["kind"] not in ("MambaSpec", CROSSED)]
    assert attending == sum(entry["page_size_bytes"] / entry["block_size"] for entry in cached), asked
    made = sum(entry["page_size_bytes"] for entry in theirs["kv"] if entry["kind"] == "MambaSpec")
    heard = sum(entry["page_size_bytes"] / entry["block_size"] for entry in theirs["kv"] if entry["kind"] == CROSSED)
    fixed = made + heard * (shape.config.max_source_positions or 0)
    assert kept_of(layers, shape.config, ENGINE, tensor_parallel_size=size).fixed == fixed, asked


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_the_layout_that_plan_puts_first_is_one_that_vllm_takes(ask: Ask, architecture: str) -> None:
    try:
        model = known_of(architecture)
    except ConfigError:
        return
    best = layouts(model, HOSTS, ENGINE, Parallelism(), across=False)[0]
    sizes = (best.tensor_parallel_size, best.pipeline_parallel_size)
    if best.rejected or sizes == (1, 1) or (sizes in LAYOUTS and architecture not in UNKNOWN):
        return  # on one GPU there is nothing to refuse, and the others are asked about above
    theirs = ask_shard(ask, architecture, Parallelism(*sizes))
    assert theirs["ok"] or any(words in theirs["message"] for words in BUGS), f"{sizes}: vLLM says {theirs}"


@pytest.mark.parametrize("architecture", sorted(UNKNOWN))
def test_what_is_listed_as_unknown_is_unknown_to_the_product(architecture: str) -> None:
    assert architecture in ARCHITECTURES
    assert is_unknown(architecture), "the product knows it: strike it from the list"


def test_every_architecture_that_vllm_serves_is_swept_or_left_out_with_a_reason(ask: Ask) -> None:
    served = set(ask(do="architectures")["served"])
    assert set(ARCHITECTURES).isdisjoint(LEFT_OUT)
    assert set(ARCHITECTURES) | set(LEFT_OUT) == served


def test_at_least_250_architectures_are_swept_and_at_most_a_tenth_is_unknown() -> None:
    assert len(ARCHITECTURES) >= 250
    assert len(UNKNOWN) <= len(ARCHITECTURES) / 10
