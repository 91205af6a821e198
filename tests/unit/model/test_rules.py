"""What vLLM would refuse: each rule, and the values that are named instead. tests/oracle holds them against vLLM."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.model.test_config import model
from vllmray.model.rules import Broken, Parallelism, broken_rules, tensor_sizes


def broken(name: str, *, changes: dict[str, Any] | None = None, **asked: Any) -> list[str]:
    known = model(name, **(changes or {}))
    return [str(each) for each in broken_rules(known.shape, known.longest_context, Parallelism(**asked))]


def test_what_is_right_breaks_no_rule() -> None:
    assert broken("llama-3.1-70b", tensor_parallel_size=8, pipeline_parallel_size=3, max_model_len=131072) == []


def test_attention_heads_must_be_divided() -> None:
    assert "tensor_parallel_size 2 does not divide 9 attention heads: use 1 or 3" in broken(
        "smollm2-135m", tensor_parallel_size=2
    )


def test_nine_gpus_can_not_share_smollm2_though_it_has_nine_heads() -> None:
    """Its feed-forward width of 1536 and its vocabulary of 49152 are no multiples of 9."""
    said = broken("smollm2-135m", tensor_parallel_size=9)
    assert said == [
        "tensor_parallel_size 9 does not divide the feed-forward width of 1536: use 1 or 3",
        "tensor_parallel_size 9 does not divide the vocabulary of 49152 (padded to a multiple of 64): use 1 or 3",
    ]


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (4, "tensor_parallel_size 4 is not a multiple of 3 key-value heads"),
        (2, "tensor_parallel_size 2 does not divide 3 key-value heads"),
    ],
)
def test_key_value_heads_are_divided_or_copied(size: int, said: str) -> None:
    changes = {"num_attention_heads": 12, "head_dim": 64, "num_key_value_heads": 3}
    assert any(line.startswith(said) for line in broken("llama-3.1-8b", changes=changes, tensor_parallel_size=size))


def test_one_key_value_head_is_copied_to_any_number_of_gpus() -> None:
    said = broken("falcon-7b", tensor_parallel_size=71)
    assert said
    assert all("key-value" not in line for line in said)


def test_gpt_oss_does_not_copy_key_value_heads() -> None:
    assert broken("gpt-oss-120b", tensor_parallel_size=8) == []
    assert broken("gpt-oss-120b", tensor_parallel_size=16)[0].startswith(
        "tensor_parallel_size 16 is more than the 8 key-value heads, which vLLM does not copy for gpt_oss"
    )


def test_widths_of_feed_forward_layers_experts_and_shared_experts_must_be_divided() -> None:
    said = "\n".join(broken("qwen1.5-moe-a2.7b", changes={"moe_intermediate_size": 1409}, tensor_parallel_size=2))
    assert "the expert width of 1409" in said
    said = "\n".join(
        broken("qwen1.5-moe-a2.7b", changes={"shared_expert_intermediate_size": 5633}, tensor_parallel_size=2)
    )
    assert "the shared expert's width of 5633" in said


def test_with_expert_parallelism_experts_stay_whole() -> None:
    changes = {"moe_intermediate_size": 1409}
    asked: dict[str, Any] = {"tensor_parallel_size": 2, "enable_expert_parallel": True}
    assert broken("qwen1.5-moe-a2.7b", changes=changes, **asked) == []


def test_expert_parallelism_needs_experts() -> None:
    assert broken("llama-3.1-8b", enable_expert_parallel=True) == [
        "--enable-expert-parallel, and the model has no experts: leave it out"
    ]


def test_quantisation_groups_stay_whole() -> None:
    assert broken("qwen2.5-72b-awq", tensor_parallel_size=8) == []  # its width was made for that
    said = broken("qwen2.5-72b-awq", changes={"intermediate_size": 29568}, tensor_parallel_size=8)
    assert any("leaves 3696 of the feed-forward width to each GPU" in line for line in said)
    assert all(line.endswith("use 1") for line in said)


def test_blocks_of_fp8_stay_whole() -> None:
    said = broken("deepseek-v3", tensor_parallel_size=32)
    assert any("leaves 576 of the feed-forward width to each GPU, not a whole number" in each for each in said)
    assert all("use 2, 4, 8 or 16" in each or "use 1, 2, 4, 8 or 16" in each for each in said)


def test_state_space_heads_and_groups_must_be_divided() -> None:
    assert any("groups of the state space layers" in line for line in broken("nemotron-h-8b", tensor_parallel_size=16))


def test_heads_of_linear_attention_must_be_divided() -> None:
    said = broken("qwen3-next-80b-a3b", changes={"linear_num_key_heads": 6}, tensor_parallel_size=4)
    assert any("does not divide 6 key heads of the linear attention" in line for line in said)


def test_a_pipeline_needs_a_layer_for_each_stage() -> None:
    assert broken("smollm2-135m", pipeline_parallel_size=31) == ["pipeline_parallel_size 31 for 30 layers: use 1 to 30"]


def test_an_architecture_that_can_not_be_staged_is_named() -> None:
    assert broken("mamba-130m", pipeline_parallel_size=2) == []
    changes = {"architectures": ["WhisperForConditionalGeneration"]}
    said = broken("llama-3.1-8b", changes=changes, pipeline_parallel_size=2)
    assert said == [
        "pipeline_parallel_size 2: pipeline parallelism is not supported for WhisperForConditionalGeneration: use 1"
    ]


@pytest.mark.parametrize(
    ("partition", "said"),
    [
        ((15, 15), None),
        ((10, 10, 10), "VLLM_PP_LAYER_PARTITION has 3 numbers for 2 pipeline stages"),
        ((15, 16), "VLLM_PP_LAYER_PARTITION makes 31 of 30 layers"),
    ],
)
def test_a_stated_partition_must_make_all_layers(partition: tuple[int, ...], said: str | None) -> None:
    found = broken("smollm2-135m", pipeline_parallel_size=2, layer_partition=partition)
    assert found == ([f"{said}: give 2 numbers that make 30, such as 15,15"] if said else [])


def test_a_context_longer_than_the_models_is_refused_unless_it_is_allowed() -> None:
    said = broken("gpt2", max_model_len=4096)
    assert said[0].startswith("max_model_len 4096 is more than the model's 1024 tokens: use at most 1024")
    assert broken("gpt2", max_model_len=4096, allow_long_max_model_len=True) == []
    assert broken("gpt2", max_model_len=-1) == []


def test_every_broken_rule_is_said_at_once() -> None:
    known = model("smollm2-135m")
    found: list[Broken] = broken_rules(known.shape, known.longest_context, Parallelism(2, 31, 10**6))
    assert {each.setting for each in found} == {"tensor_parallel_size", "pipeline_parallel_size", "max_model_len"}


def test_the_named_sizes_are_those_nearest_to_the_one_asked_for() -> None:
    assert broken("llama-3.1-70b", tensor_parallel_size=48)[0].endswith("use 2, 4, 8, 16, 32 or 64")


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("smollm2-135m", [1, 3]),
        ("llama-3.1-70b", [1, 2, 4, 8, 16, 32, 64]),
        ("deepseek-v3", [1, 2, 4, 8, 16]),
        ("gpt-oss-120b", [1, 2, 4, 8]),
    ],
)
def test_the_sizes_that_a_model_allows(name: str, sizes: list[int]) -> None:
    assert tensor_sizes(model(name).shape, Parallelism()) == sizes


@pytest.mark.parametrize(
    ("name", "size", "said"),
    [
        ("kimi-linear-48b", 64, "does not divide 32 heads of the linear attention"),
        ("deepseek-v4-flash", 16, "does not divide 8 groups of the attention output"),
        ("zamba2-2.7b", 16, "does not divide 8 heads of the state space layers"),
        ("nemotron-super-49b", 3, "does not divide the feed-forward width of 2816"),
    ],
)
def test_what_families_of_several_kinds_of_layers_can_not_divide(name: str, size: int, said: str) -> None:
    assert any(said in line for line in broken(name, tensor_parallel_size=size))
