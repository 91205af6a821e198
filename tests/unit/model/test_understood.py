"""What of a config.json is understood, and what makes a figure unknown instead of wrong."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.model.test_config import KNOWN, model, raw
from vllmray.model.layouts import HostGpus, layouts
from vllmray.model.memory import GIB, Engine
from vllmray.model.model import Model, model_of, parameters_of, unknown_figures
from vllmray.model.rules import Parallelism

TWO_GPUS = [HostGpus("host", (80 * GIB,) * 2)]
LAYERS = 32


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("attention_schedule", [0, 1] * 16),
        ("every_nth_is_local", 4),
        ("layer_group_size", 5),
        ("num_kv_shared_layers", 15),
        ("swa_num_key_value_heads", 8),
        ("cache_compression", 4),
        ("colours", ["red"] * LAYERS),
        ("per_layer_config", {"3": {"head_dim": 512}}),
        ("compress_ratios", [4] * LAYERS),
        ("hybrid_layer_pattern", [0, 1] * 16),
        ("num_key_value_heads", [8] * 31 + [4]),
        ("full_attention_layer_ids", [0, 7, 15]),
        ("kv_expansion_factor", 2),
        ("head_dim_multiplier", 2),
        ("token_mixer", "retention"),
        ("full_at", [3, 7, 11]),
        ("num_meta_tokens", 128),
        ("output_gate", "silu"),
        ("delta_rule", True),
    ],
)
def test_a_key_that_describes_layers_heads_or_a_cache_and_is_not_understood_makes_both_figures_unknown(
    name: str, value: object
) -> None:
    known = model("llama-3.1-8b", **{name: value}).shape
    assert known.kv_unknown == (f"{name} is not understood",)
    assert known.weights_unknown == known.kv_unknown


@pytest.mark.parametrize(
    "name", ["zero_expert_num", "moe_adapter_rank", "dense_intermediate_size", "ngram_vocab_size", "router_hidden_size"]
)
def test_a_key_that_describes_experts_or_widths_makes_the_weights_unknown_alone(name: str) -> None:
    shape = model("mixtral-8x7b", **{name: 64}).shape
    assert (shape.kv_unknown, shape.weights_unknown) == ((), (f"{name} is not understood",))


@pytest.mark.parametrize("value", [None, False, 0, [], {}, ""])
def test_a_key_that_is_switched_off_changes_nothing(value: object) -> None:
    assert model("llama-3.1-8b", attention_schedule=value).shape.kv_unknown == ()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"attn_layer_indices": [2, 3]}, "config.json has no size of the state space"),
        ({"mamba_num_heads": 32}, "config.json does not say which layers have a state space"),
        ({"index_head_dim": 128, "index_n_heads": 32}, "index_head_dim is not understood for llama"),
    ],
)
def test_a_key_that_another_family_has_is_never_dropped(changes: dict[str, Any], reason: str) -> None:
    assert model("llama-3.1-8b", **changes).shape.kv_unknown == (reason,)


def test_an_unknown_word_for_a_feed_forward_layer_makes_the_weights_unknown() -> None:
    shape = model("qwen3-30b-a3b", mlp_layer_types=["dense", "identity"] * 24).shape
    assert (shape.kv_unknown, shape.weights_unknown) == ((), ("mlp_layer_types is not understood",))


EIGHT, FOUR = {"weights": {"num_bits": 8}}, {"weights": {"num_bits": 4}}


@pytest.mark.parametrize(
    ("quantization", "is_known"),
    [
        ({"quant_method": "fp8"}, True),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, True),
        ({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"}, False),
        ({"quant_method": "compressed-tensors", "config_groups": {"group_0": EIGHT}}, True),
        ({"quant_method": "compressed-tensors", "config_groups": {"group_0": EIGHT, "group_1": FOUR}}, False),
        ({"quant_method": "compressed-tensors", "config_groups": {"experts": FOUR}}, False),
        ({"quant_method": "quark"}, False),
        ({"quant_method": "torchao"}, False),
        ({"quant_method": "of_tomorrow", "bits": 3}, True),
        ({}, True),
    ],
)
def test_a_quantisation_that_does_not_say_how_wide_weights_are_makes_them_unknown_until_the_files_are_weighed(
    quantization: dict[str, Any], is_known: bool
) -> None:
    config = raw("llama-3.1-8b") | {"quantization_config": quantization}
    known = model_of(config, "quantised")
    assert (known.knows_weights, known.shape.kv_unknown) == (is_known, ())
    assert model_of(config, "weighed", 9 * GIB).knows_weights


def test_usual_keys_that_decide_no_size_leave_every_figure_known() -> None:
    usual = {"attention_multiplier": 0.1, "attn_scale": 0.1, "routed_scaling_factor": 2.5, "eos_token_ids": [1, 2]}
    usual |= {"_attn_implementation_autoset": True, "use_flash_attn": True, "kv_cache_scheme": None, "clip_qkv": 8}
    usual |= {"output_router_logits": True, "router_aux_loss_coef": 0.1, "no_rope_layers": [1] * LAYERS}
    assert unknown_figures(model("llama-3.1-8b", **usual)) == []


def test_an_unknown_word_for_a_layer_is_named_and_never_read_as_full_attention() -> None:
    words = ["full_attention", "quantum_attention"] * 12
    known = model("gpt-oss-20b", layer_types=words)
    assert known.shape.kv_unknown == ("unknown layer type 'quantum_attention'",)


def test_latent_attention_in_a_family_that_is_not_known_to_have_it_is_unknown() -> None:
    known = model_of(raw("deepseek-v3") | {"model_type": "deepseek_v9"}, "v9")
    assert known.shape.kv_unknown == ("kv_lora_rank is not understood for deepseek_v9",)


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_every_model_whose_parameters_were_counted_is_understood(name: str) -> None:
    assert unknown_figures(model(name)) == []


def found(known: Model, **engine: Any) -> list[Any]:
    asked = Parallelism(max_model_len=4096)
    return layouts(known, TWO_GPUS, Engine(max_model_len=4096, **engine), asked, across=False)


def test_where_the_cache_is_not_known_the_weights_alone_rank_and_reject() -> None:
    schedule = {"attention_schedule": [0, 1] * 40}
    small = found(model_of(raw("llama-3.1-8b") | {"attention_schedule": [1] * 32}, "small", 16 * GIB))
    large = found(model_of(raw("llama-3.1-70b") | schedule, "large", 140 * GIB))
    assert {(each.sequences, each.longest_context, each.rejected) for each in small} == {(None, None, "")}
    assert (small[0].tensor_parallel_size, small[0].pipeline_parallel_size) == (1, 1)
    assert all(stage.weights and stage.room and stage.kept is None for stage in small[0].stages)
    single = next(each for each in large if each.world_size == 1)
    assert "do not fit into 73.1 GiB of a GPU" in single.rejected


def test_with_little_left_beside_the_weights_more_gpus_come_first() -> None:
    known = model_of(raw("llama-3.1-8b") | {"attention_schedule": [1] * 32}, "model", 64 * GIB)
    assert found(known)[0].tensor_parallel_size == 2


def test_where_not_even_the_weights_are_known_nothing_is_rejected_and_the_most_gpus_come_first() -> None:
    best = found(model("llama-3.1-70b", attention_schedule=[1] * 80))[0]
    assert (best.world_size, best.rejected, best.stages[0].weights, best.stages[0].room) == (2, "", None, None)


def test_what_is_not_known_is_said_in_one_line_each() -> None:
    known = model("llama-3.1-8b", attention_schedule=[1] * 32)
    assert unknown_figures(known) == [
        "KV cache: not known for this model (attention_schedule is not understood); vLLM decides",
        "weights: not known for this model (attention_schedule is not understood); vLLM decides",
    ]
    assert parameters_of(known) == "number of parameters not known"
    weighed = model_of(raw("llama-3.1-8b") | {"attention_schedule": [1] * 32}, "model", 16 * GIB)
    assert len(unknown_figures(weighed)) == 1


@pytest.mark.parametrize(
    ("name", "said", "changes"),
    [
        ("lfm2-1.2b", "a convolution", {"layer_types": None, "full_attn_idxs": None}),
        ("qwen3-next-80b-a3b", "linear attention", {"layer_types": None, "full_attention_interval": None}),
        ("nemotron-h-8b", "a state space", {"hybrid_override_pattern": None}),
    ],
)
def test_a_kind_of_layer_without_a_word_on_which_layers_it_is_makes_the_cache_unknown(
    name: str, said: str, changes: dict[str, Any]
) -> None:
    config = {key: value for key, value in (raw(name) | changes).items() if value is not None}
    assert f"config.json does not say which layers have {said}" in model_of(config, name).shape.kv_unknown
