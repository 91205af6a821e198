"""Families whose layers are not all alike: what vLLM keeps and weighs, one model each.

Numbers are vLLM's own (tests/oracle), or follow from its source where no CPU builds the layers.
"""

from __future__ import annotations

import pytest

from tests.unit.model.test_config import model, raw
from vllmray.model.layouts import HostGpus, Layout, layouts
from vllmray.model.memory import GIB, Engine, Kept, kept_of, stage_weights
from vllmray.model.model import model_of
from vllmray.model.rules import Parallelism, broken_rules, tensor_problems

ENGINE = Engine(max_model_len=4096)
EIGHT = [HostGpus("host", (141 * GIB,) * 8)]


def kept(name: str, size: int = 1) -> Kept:
    shape = model(name).shape
    return kept_of(shape.layers, shape.config, ENGINE, tensor_parallel_size=size)


def layout(name: str, size: int, length: int) -> Layout:
    asked = Parallelism(max_model_len=length)
    found = layouts(model(name), EIGHT, Engine(max_model_len=length), asked, across=False)
    return next(each for each in found if (each.tensor_parallel_size, each.pipeline_parallel_size) == (size, 1))


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("nemotron-3-ultra-550b", 108),
        ("nemotron-3.5-lightning-30b", 52),
        ("nemotron-3-super-120b", 88),
    ],
)
def test_a_list_of_layers_stands_for_their_number(name: str, layers: int) -> None:
    assert len(model(name).shape.layers) == layers


@pytest.mark.parametrize(
    ("name", "size", "token", "fixed"),
    [
        ("nemotron-super-49b", 1, [(200_704, None)], 0),
        ("mimo-v2-flash", 4, [(9 * 640, None), (39 * 1280, 128)], 0),
        ("deepseek-v3.2", 8, [(61 * (1152 + 132), None)], 0),
        ("glm-5", 8, [(78 * (1152 + 132), None)], 0),
        ("kimi-linear-48b", 1, [(7 * 1152, None)], 20 * (3 * 4096 * 3 * 2 + 32 * 128 * 128 * 4)),
        ("minicpm3-4b", 2, [(476_160, None)], 0),
        ("zamba2-2.7b", 1, [(9 * 20_480, None)], 54 * 686_848),
        ("zamba2-2.7b", 2, [(9 * 10_240, None)], 54 * 343_808),
        ("hy-v4", 1, [(34 * 1152 + 10 * 132, None)], 0),
        ("qwen3.5-27b", 4, [(16_384, None)], 38_486_016),
        ("whisper-large-v3", 2, [(32 * 2560, None)], 32 * 2560 * 1500),
        ("bge-reranker-v2-m3", 1, [], 0),
    ],
)
def test_what_a_sequence_keeps_on_each_gpu(
    name: str, size: int, token: list[tuple[int, int | None]], fixed: int
) -> None:
    """Bytes a token, of at most so many tokens, and bytes whatever the length."""
    found = kept(name, size)
    assert sorted(found.token, key=str) == sorted(token, key=str)
    assert found.fixed == fixed


def test_deepseek_v4_keeps_windows_and_one_state_for_each_4_or_128_tokens() -> None:
    """vLLM's pages: 64 states of 584 bytes are 37440 bytes, a multiple of 576."""
    by_window = {window: each for each, window in kept("deepseek-v4-flash", 8).token}
    assert by_window[128] == 43 * 585 + 20 * 4104
    assert by_window[None] == 21 * (37440 + 8640) / 256 + 20 * 1728 / 256
    assert by_window[8] == 21 * (32832 + 8640) / 4


@pytest.mark.parametrize(
    ("name", "size", "short", "long"),
    [("mimo-v2-flash", 4, 65_536, 262_144), ("deepseek-v4-flash", 2, 65_536, 1_048_576)],
)
def test_fewer_long_sequences_fit_than_short_ones(name: str, size: int, short: int, long: int) -> None:
    few, many = (layout(name, size, length).sequences for length in (long, short))
    assert few is not None
    assert many is not None
    assert 0 < few < many


def test_the_49b_that_a_search_made_fits_65536_tokens_on_two_gpus() -> None:
    assert layout("nemotron-super-49b", 2, 65_536).rejected == ""


def test_a_regular_expression_of_what_is_not_quantised_means_what_it_matches() -> None:
    """The shared experts are left as they are, the experts are not: 555 GiB with the vision tower."""
    known = model("kimi-k2.5")
    weights = stage_weights(known.shape, known.shape.layers, ENGINE, first=True, last=True)
    assert weights / GIB == pytest.approx(554, rel=0.01)


def test_experts_of_deepseek_v4_take_4_bits_and_their_scales() -> None:
    known = model("deepseek-v4-flash")
    weights = stage_weights(known.shape, known.shape.layers, ENGINE, first=True, last=True)
    assert weights / GIB == pytest.approx(145, rel=0.01)


@pytest.mark.parametrize("size", [2, 4, 8])
def test_a_vision_tower_of_25_heads_is_whole_on_each_gpu_where_vllm_falls_back_to_that(size: int) -> None:
    assert tensor_problems(model("internvl3-78b").shape, Parallelism(size)) == []


def test_another_tower_whose_heads_can_not_be_divided_is_refused() -> None:
    known = model("qwen2.5-vl-7b", vision_config={"num_heads": 25})
    assert any("25 heads of the vision tower" in each for each in tensor_problems(known.shape, Parallelism(2)))


def test_whisper_is_shared_by_two_gpus() -> None:
    assert broken_rules(model("whisper-large-v3").shape, 448, Parallelism(2)) == []


@pytest.mark.parametrize("name", ["bge-reranker-v2-m3", "whisper-large-v3", "zamba2-2.7b"])
def test_a_class_that_has_no_stages_is_refused_in_vllms_words(name: str) -> None:
    (broken,) = broken_rules(model(name).shape, None, Parallelism(1, 2))
    assert "pipeline parallelism is not supported for" in broken.what
    assert broken.fix == "use 1"


def test_last_layers_that_borrow_keys_and_values_keep_none_and_have_queries_alone() -> None:
    """Gemma 3n and 4 (vllm/model_executor/models/gemma4.py); embeddings of each layer weigh on the first stage."""
    changes = {"model_type": "gemma4_text", "num_kv_shared_layers": 8, "hidden_size_per_layer_input": 256}
    plain = model("llama-3.1-8b", model_type="gemma4_text").shape
    borrowing = model("llama-3.1-8b", **changes).shape
    assert borrowing.kv_unknown == ()
    assert [bool(layer.state.caches) for layer in borrowing.layers] == [True] * 24 + [False] * 8
    keys_and_values = 8 * 4096 * 2 * 1024
    embeddings = 32 * 256 * (128_256 + 4096 + 2 * 4096)
    assert borrowing.parameters == plain.parameters - keys_and_values + embeddings


def test_heads_of_one_layer_are_its_own() -> None:
    known = model("llama-3.1-8b", model_type="gemma4_text", per_layer_config={"03": {"head_dim": 256}}).shape
    ordinary, wide = (known.layers[index].state.caches[0].part.count for index in (2, 3))
    assert wide == 2 * ordinary


def test_a_gate_that_a_family_has_unless_it_says_otherwise_is_weighed() -> None:
    """Qwen3.5 (vllm/model_executor/models/qwen3_next.py, Qwen3NextAttention: attn_output_gate)."""
    said, left_out = ({**raw("qwen3.5-27b")["text_config"], "model_type": "qwen3_5_text"} for _ in range(2))
    del left_out["attn_output_gate"]
    assert model_of(left_out, "left out").shape.parameters == model_of(said, "said").shape.parameters
