"""Memory a GPU, and the ranking of layouts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.model.test_config import KNOWN, model
from vllmray.model.layouts import HostGpus, Layout, layouts
from vllmray.model.memory import GIB, Engine, kept_of, token_bytes
from vllmray.model.partition import even_partition, partition_by_room
from vllmray.model.rules import Parallelism

ENGINE = Engine(max_model_len=4096)
TWO_BY_TWO = [HostGpus("a", (80 * GIB,) * 2), HostGpus("b", (80 * GIB,) * 2)]


def ranked(name: str, hosts: list[HostGpus], *, engine: Engine = ENGINE, across: bool = False) -> list[Layout]:
    return layouts(model(name), hosts, engine, Parallelism(max_model_len=engine.max_model_len), across=across)


def sizes(layout: Layout) -> tuple[int, int]:
    return layout.tensor_parallel_size, layout.pipeline_parallel_size


def test_llama_70b_on_two_hosts_of_two_gpus_is_tp_2_pp_2_first() -> None:
    best = ranked("llama-3.1-70b", TWO_BY_TWO)[0]
    assert (sizes(best), best.replicas, best.rejected) == ((2, 2), 1, "")
    assert (best.sequences or 0) > 50
    assert best.longest_context == 131072
    assert best.network_bytes == 2 * 8192 * 2
    assert [round((stage.weights or 0) / GIB, 1) for stage in best.stages] == [32.9, 32.9]


def test_a_stage_over_two_hosts_is_rejected_with_what_it_would_cost() -> None:
    across = next(each for each in ranked("llama-3.1-70b", TWO_BY_TWO) if each.tensor_parallel_size == 4)
    assert "a stage of 4 GPUs would span hosts, which have 2 at most" in across.rejected
    assert "5.2 MB a token (--allow-tp-across-hosts)" in across.rejected


def test_a_stage_over_two_hosts_is_taken_when_it_is_allowed_and_comes_after_the_others_of_its_size() -> None:
    found = [each for each in ranked("llama-3.1-70b", TWO_BY_TWO, across=True) if not each.rejected]
    across = next(each for each in found if each.tensor_parallel_size == 4)
    assert across.network_bytes > 10**6


def test_a_small_model_takes_one_gpu_and_the_others_carry_copies() -> None:
    best = ranked("llama-3.1-8b", TWO_BY_TWO)[0]
    assert (sizes(best), best.replicas, best.network_bytes) == ((1, 1), 4, 0)


def test_a_model_too_large_for_all_gpus_is_rejected_with_the_numbers() -> None:
    found = ranked("deepseek-v3", TWO_BY_TWO)
    assert all(layout.rejected for layout in found)
    assert any("do not fit into 73.1 GiB of a GPU" in layout.rejected for layout in found)


def test_a_context_that_does_not_fit_names_the_one_that_would() -> None:
    engine = replace(ENGINE, max_model_len=131072)
    single = next(each for each in ranked("llama-3.1-70b", TWO_BY_TWO, engine=engine) if sizes(each) == (2, 1))
    assert "a sequence of 131072 tokens does not fit: about 27" in single.rejected


def test_hosts_of_unequal_memory_get_layers_in_proportion() -> None:
    hosts = [HostGpus("a", (80 * GIB,)), HostGpus("b", (80 * GIB,)), HostGpus("c", (24 * GIB,))]
    best = ranked("llama-3.1-70b", hosts)[0]
    assert sizes(best) == (1, 3)
    assert sum(best.partition) == 80
    assert best.partition[2] < best.partition[0] / 2
    assert not best.is_even
    assert (best.sequences or 0) >= 1


def test_hosts_of_unequal_gpu_counts_are_used_whole() -> None:
    hosts = [HostGpus("a", (80 * GIB,) * 2), HostGpus("b", (80 * GIB,))]
    best = ranked("llama-3.1-70b", hosts)[0]
    assert sizes(best) == (1, 3)
    assert [place.host for place in best.places] == ["a", "a", "b"]


@pytest.mark.parametrize(("layers", "stages"), [(30, 4), (80, 3), (61, 8), (7, 7), (5, 4), (126, 16)])
def test_vllms_own_partition_makes_all_layers_and_spares_the_last_stage(layers: int, stages: int) -> None:
    partition = even_partition(layers, stages)
    assert sum(partition) == layers
    assert max(partition) - min(partition) <= 1
    assert partition[-1] == min(partition)


def test_a_partition_by_room_never_leaves_a_stage_without_a_layer() -> None:
    assert partition_by_room(10, [100.0, 100.0, 5.0], 5.0, 1.0) in {(5, 4, 1), (4, 5, 1)}
    assert partition_by_room(10, [10.0, 10.0], 5.0, 1.0) is None


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("llama-3.1-70b", 1, 80 * 8 * 256 * 2),
        ("llama-3.1-70b", 2, 80 * 4 * 256 * 2),
        ("llama-3.1-70b", 16, 80 * 1 * 256 * 2),  # copied beyond 8
        ("deepseek-v3", 8, 61 * 576 * 2),  # one latent vector, on every GPU
        ("qwen3-next-80b-a3b", 2, 12 * 1 * 512 * 2),  # one layer of four attends
    ],
)
def test_keys_and_values_of_a_token(name: str, size: int, expected: int) -> None:
    known = model(name)
    layers, config = known.shape.layers, known.shape.config
    assert sum(token_bytes(layer, config, ENGINE, tensor_parallel_size=size) for layer in layers) == expected


def test_a_cache_of_8_bits_halves_keys_and_values() -> None:
    known = model("llama-3.1-8b")
    engine = replace(ENGINE, kv_cache_dtype="fp8")
    assert token_bytes(known.shape.layers[0], known.shape.config, engine) == 8 * 256


def test_a_window_keeps_its_tokens_and_the_batch_and_a_recurrent_state_is_the_same_at_any_length() -> None:
    for name, grows in (("mistral-7b-v0.1", False), ("falcon-mamba-7b", False), ("mistral-7b-v0.3", True)):
        known = model(name)
        kept = kept_of(known.shape.layers, known.shape.config, ENGINE, tensor_parallel_size=1)
        batch = ENGINE.batch(80 * GIB)
        assert (kept.bytes_of(200_000, batch) > kept.bytes_of(100_000, batch)) is grows, name


@pytest.mark.parametrize(
    ("name", "gib"),
    [("qwen2.5-72b-awq", 38.8), ("deepseek-v3", 641), ("gpt-oss-120b", 60.8), ("qwen2.5-32b-gptq-int4", 18.0)],
)
def test_quantised_weights_have_about_the_size_of_the_published_files(name: str, gib: float) -> None:
    """In GiB, as the models' pages on the hub list their files (DeepSeek-V3 without its MTP layer)."""
    whole = model(name).stage((len(model(name).shape.layers),), 0, ENGINE, tensor_parallel_size=1, memory=GIB).weights
    assert (whole or 0) / GIB == pytest.approx(gib, rel=0.03)


@pytest.mark.parametrize("name", ["llama-3.1-70b", "smollm2-135m", "deepseek-v3", "qwen3-8b"])
def test_the_stages_of_a_pipeline_hold_the_whole_model(name: str) -> None:
    known = model(name)
    count = len(known.shape.layers)
    partition = even_partition(count, 4)
    stages = [known.stage(partition, at, ENGINE, tensor_parallel_size=1, memory=GIB) for at in range(4)]
    whole = known.stage((count,), 0, ENGINE, tensor_parallel_size=1, memory=GIB)
    again = known.shape.embedding * 2 if known.shape.tied else 0  # tied, the last stage has the embedding too
    assert sum(stage.weights or 0 for stage in stages) == pytest.approx((whole.weights or 0) + again, rel=1e-6)


def test_some_families_have_embedding_and_head_on_every_stage() -> None:
    known = model("qwen3-30b-a3b")
    middle = known.stage((16, 16, 16), 1, ENGINE, tensor_parallel_size=1, memory=GIB).weights
    layers = sum(part.count for layer in known.shape.layers[16:32] for part in layer.parts)
    assert middle == pytest.approx(2 * (layers + 2 * known.shape.embedding), rel=0.001)


def test_the_checkpoints_bytes_correct_the_shapes() -> None:
    known = model("llama-3.1-8b")
    twice = replace(known, checkpoint_bytes=known.shape.parameters * 4)
    plain = known.stage((32,), 0, ENGINE, tensor_parallel_size=1, memory=GIB)
    assert twice.stage((32,), 0, ENGINE, tensor_parallel_size=1, memory=GIB).weights == pytest.approx(
        2 * (plain.weights or 0), rel=0.001
    )


def test_every_known_model_can_be_ranked() -> None:
    for name in KNOWN:
        assert ranked(name, TWO_BY_TWO), name
