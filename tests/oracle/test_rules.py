"""Our rules and sums against vLLM itself, which builds its configuration and its layers of the same config.json.

Hundreds of cases from hypothesis over the real configurations in tests/data/models, with random sizes. What is known to
differ is listed in KNOWN_DIFFERENCES, each with its reason; every other difference fails.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from tests.oracle.conftest import Ask
from tests.unit.model.test_config import KNOWN, raw
from vllmray.model.memory import Engine, kept_of, stage_weights, token_bytes
from vllmray.model.model import model_of
from vllmray.model.partition import even_partition
from vllmray.model.rules import Parallelism, broken_rules

ENGINE = Engine(max_model_len=4096)
# What only vLLM's configuration is asked for, in our words for it; the layers have the rest.
SAID_BY_THE_CONFIGURATION = ("attention heads", "pipeline parallelism", "max_model_len", "--enable-expert-parallel")
HEADS = ("num_attention_heads", "n_head", "n_heads")
KNOWN_DIFFERENCES = {
    "'PPMissingLayer' object has no attribute": "ERNIE 4.5 MoE in several stages: a bug of vllm 0.32",
    "is not supported anymore": "MPT went with vllm 0.28; which architectures a version has is no matter of sizes",
}
ONLY_ON_GPUS = "not a whole number of quantisation groups"
"""AWQ and GPTQ: the kernels of the CPU do not look (vllm/model_executor/layers/quantization/utils/marlin_utils.py)."""
FIXED = ("MambaSpec", "CrossAttentionSpec")
"""Kinds of cache whose size does not grow with the sequence."""
NAMES = st.sampled_from(sorted(KNOWN))
# The same cases each time; a case that fails is small already, and shrinking it would ask vLLM a hundred times more.
MANY = settings(
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def assert_agreement(ours: list[str], theirs: dict[str, Any], case: str) -> None:
    """Both refuse, or both do not."""
    if any(known in theirs.get("message", "") for known in KNOWN_DIFFERENCES):
        return
    if theirs["ok"] and all(ONLY_ON_GPUS in line for line in ours):
        return
    assert theirs["ok"] == (not ours), f"{case}: we say {ours}, vLLM says {theirs}"


@settings(MANY, max_examples=300)
@given(
    name=NAMES,
    heads=st.sampled_from([None, 1, 2, 6, 8, 9, 12, 32, 48]),
    tensor=st.integers(1, 16),
    pipeline=st.integers(1, 6),
    length=st.one_of(st.none(), st.sampled_from([1, 512, 1024, 1025, 2048, 4096, 8192, 32768, 131072, 131073, 2**21])),
    experts=st.booleans(),
)
def test_vllms_configuration_refuses_what_our_rules_refuse_and_nothing_else(
    ask: Ask, name: str, heads: int | None, tensor: int, pipeline: int, length: int | None, experts: bool
) -> None:
    config = with_heads(raw(name), heads)
    known = model_of(config, name)
    asked = Parallelism(tensor, pipeline, length, enable_expert_parallel=experts)
    said = [str(broken) for broken in broken_rules(known.shape, known.longest_context, asked)]
    ours = [line for line in said if any(words in line for words in SAID_BY_THE_CONFIGURATION)]
    theirs = ask(
        do="config",
        config=config,
        tensor_parallel_size=tensor,
        pipeline_parallel_size=pipeline,
        max_model_len=length,
        enable_expert_parallel=experts,
    )
    assume(theirs.get("error") != "Unsupported")
    assert_agreement(ours, theirs, f"{name} with {heads} heads, {asked}")


def with_heads(config: dict[str, Any], heads: int | None) -> dict[str, Any]:
    """The configuration with another number of attention heads, where its width allows that."""
    for place in (config, config.get("text_config", {})):
        for name in HEADS:
            width = place.get("hidden_size") or place.get("n_embd") or place.get("d_model")
            if heads and name in place and width and width % heads == 0:
                place[name] = heads
                place |= {key: heads for key in ("num_key_value_heads", "num_kv_heads") if key in place}
    return config


@settings(MANY, max_examples=400)
@given(
    name=NAMES,
    tensor=st.sampled_from([1, 2, 3, 4, 6, 8, 16, 32]),
    pipeline=st.integers(1, 3),
    last=st.booleans(),
    width=st.sampled_from([None, 96, 128, 384, 1000, 4096]),
)
def test_vllms_layers_refuse_what_our_rules_refuse_and_weigh_what_we_say(
    ask: Ask, name: str, tensor: int, pipeline: int, last: bool, width: int | None
) -> None:
    config = with_width(raw(name), width)
    known = model_of(config, name)
    asked = Parallelism(tensor, pipeline)
    ours = [str(broken) for broken in broken_rules(known.shape, known.longest_context, asked)]
    stage = pipeline - 1 if last else 0
    theirs = ask(
        do="shard",
        config=config,
        tensor_parallel_size=tensor,
        pipeline_parallel_size=pipeline,
        rank=stage * tensor,
    )
    assume(theirs.get("error") != "Unsupported")
    case = f"{name} with width {width}, {asked}, stage {stage}"
    assert_agreement(ours, theirs, case)
    if theirs["ok"] and not ours:
        assert_same_sums(known, theirs, asked, stage, case)


def with_width(config: dict[str, Any], width: int | None) -> dict[str, Any]:
    """The configuration with other widths of feed-forward layers; what is quantised was made for its own."""
    if "quantization_config" in config:
        return config
    for place in (config, config.get("text_config", {})):
        for name in ("intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size", "ffn_dim"):
            if (
                width
                and isinstance(place.get(name), int)
                and place[name] > 0
                and "mamba" not in str(place.get("model_type"))
            ):
                place[name] = width
    return config


def assert_same_sums(known: Any, theirs: dict[str, Any], asked: Parallelism, stage: int, case: str) -> None:
    """Weights within a percent; keys, values and states to the byte."""
    partition = even_partition(len(known.shape.layers), asked.pipeline_parallel_size)
    begin = sum(partition[:stage])
    layers = known.shape.layers[begin : begin + partition[stage]]
    size, config = asked.tensor_parallel_size, known.shape.config
    weights = stage_weights(
        known.shape,
        layers,
        ENGINE,
        tensor_parallel_size=size,
        first=stage == 0,
        last=stage == asked.pipeline_parallel_size - 1,
    )
    tower = theirs["by_prefix"].get("vision", 0)  # its shape is not known to us; a checkpoint's size brings it in
    assert weights == pytest.approx(theirs["bytes"] - tower, rel=0.01), case
    attending = sum(token_bytes(layer, config, ENGINE, tensor_parallel_size=size) for layer in layers)
    kept = kept_of(layers, config, ENGINE, tensor_parallel_size=size)
    by_kind = {kind: [entry for entry in theirs["kv"] if entry["kind"] == kind] for kind in FIXED}
    cached = [entry for entry in theirs["kv"] if entry["kind"] not in FIXED]
    crossed = sum(entry["page_size_bytes"] / entry["block_size"] for entry in by_kind["CrossAttentionSpec"])
    states = sum(entry["page_size_bytes"] for entry in by_kind["MambaSpec"])
    assert attending == sum(entry["page_size_bytes"] / entry["block_size"] for entry in cached), case
    assert kept.fixed == states + crossed * (config.max_source_positions or 0), case
