"""Settings against the model: refused before anything starts, or chosen for the GPUs there are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fake_host import FakeHost, Ran
from tests.unit.cluster.test_up import READY, names
from tests.unit.model.test_config import raw
from tests.unit.support import RecordingReporter, card, config, good_host, probe_answer
from vllmray.cluster.probe.model import Look, look_there
from vllmray.cluster.run import UpOptions
from vllmray.cluster.spec.sizes import asked, check_fit, choose, engine_of, known_model, resolve_sizes, why
from vllmray.cluster.up import up_head
from vllmray.config.settings import load
from vllmray.errors import ConfigError, HostError
from vllmray.hub.files import ModelFiles
from vllmray.model.layouts import HostGpus
from vllmray.model.memory import GIB, StageMemory
from vllmray.model.model import Model, unknown_figures

TWO_BY_TWO = ((80 * GIB,) * 2,) * 2


def files(name: str, **changes: Any) -> ModelFiles:
    values: dict[str, Any] = {"weight_bytes": None, "weights": "safetensors"} | changes
    return ModelFiles(name, f"folder {name}", raw(name), **values)


def model(name: str, **settings: Any) -> Model:
    return known_model(files(name), config(**settings))


def refusal(
    name: str, flags: dict[str, Any] | None = None, dotenv: str = "", folder: Path | None = None
) -> ConfigError:
    file = (folder or Path()) / ".env"
    if dotenv:
        file.write_text(dotenv)
    loaded = load(flags or {}, environ={}, env_file=file if dotenv else None)
    with pytest.raises(ConfigError) as caught:
        check_fit(known_model(files(name), loaded.config), loaded.config, loaded.layers)
    return caught.value


def test_each_problem_names_the_setting_as_the_user_wrote_it(folder: Path) -> None:
    error = refusal("smollm2-135m", {"pipeline_parallel_size": 40}, "TENSOR_PARALLEL_SIZE=2\n", folder)
    assert str(error.details).splitlines() == [
        f"TENSOR_PARALLEL_SIZE in {folder}/.env: tensor_parallel_size 2 does not divide 9 attention heads; use 1 or 3",
        f"TENSOR_PARALLEL_SIZE in {folder}/.env: tensor_parallel_size 2 does not divide 3 key-value heads; use 1 or 3",
        "--pipeline-parallel-size: pipeline_parallel_size 40 for 30 layers; use 1 to 30",
    ]
    assert "vllmray plan" in str(error.hint)


def test_vllms_own_arguments_and_variables_count() -> None:
    flags: dict[str, Any] = {"tensor_parallel_size": 1, "vllm_args": ("--enable_expert_parallel",)}
    assert "the model has no experts; leave it out" in str(refusal("smollm2-135m", flags).details)
    flags = {"tensor_parallel_size": 1, "pipeline_parallel_size": 2, "env": ["VLLM_PP_LAYER_PARTITION=10,10"]}
    assert "makes 20 of 30 layers; give 2 numbers that make 30" in str(refusal("smollm2-135m", flags).details)
    assert "is not a list of layers" in str(
        refusal("smollm2-135m", flags | {"env": ["VLLM_PP_LAYER_PARTITION=a"]}).details
    )
    long = config(max_model_len=10**6, env=("VLLM_ALLOW_LONG_MAX_MODEL_LEN=1",))
    assert asked(long).allow_long_max_model_len


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--gpu-memory-utilization=1.5", "--gpu-memory-utilization after --: too large; the most is 1"),
        ("--max-num-seqs=many", "--max-num-seqs after --: not a whole number"),
    ],
)
def test_a_value_that_vllm_would_refuse_is_refused(argument: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        model("llama-3.1-8b", vllm_args=(argument,))
    assert said.partition("; the")[0] in str(caught.value.details)


def test_the_world_size_is_held_against_the_stated_gpus() -> None:
    gpus = "2x80GiB,2x80GiB"
    flags: dict[str, Any] = {"cluster_gpus": gpus, "tensor_parallel_size": 2, "pipeline_parallel_size": 4}
    assert "2 x 4 GPUs are more than the 4 of cluster_gpus; use at most 2" in str(
        refusal("llama-3.1-70b", flags).details
    )
    flags |= {"tensor_parallel_size": 4, "pipeline_parallel_size": 1}
    assert "hosts of 2, 2 GPUs hold only 0 of 1 stages; use at most 2, or --allow-tp-across-hosts" in str(
        refusal("llama-3.1-70b", flags).details
    )
    loaded = load(flags | {"allow_tp_across_hosts": True}, environ={})
    check_fit(known_model(files("llama-3.1-70b"), loaded.config), loaded.config, loaded.layers)


def test_a_folder_without_weights_is_refused_unless_none_are_read() -> None:
    with pytest.raises(ConfigError, match="has no weights of gpt2"):
        known_model(files("gpt2", weights="none"), config())
    assert known_model(files("gpt2", weights="none"), config(vllm_args=("--load-format", "dummy"))).shape


def first_stage(known: Model, *args: str, memory: int = 80 * GIB) -> StageMemory:
    """The one GPU of a model."""
    layers = (len(known.shape.layers),)
    return known.stage(layers, 0, engine_of(config(vllm_args=args), known), tensor_parallel_size=1, memory=memory)


def seen(name: str, *args: str) -> StageMemory:
    return first_stage(model(name, vllm_args=args), *args)


@pytest.mark.parametrize(
    ("name", "method", "least", "most"),
    [
        ("llama-3.1-8b", "fp8", 0.5, 0.6),
        ("llama-3.1-8b", "fp8_per_tensor", 0.5, 0.6),
        ("llama-3.1-8b", "fp8_per_channel", 0.5, 0.6),
        ("llama-3.1-8b", "fp8_per_block", 0.5, 0.6),
        ("llama-3.1-8b", "mxfp8", 0.52, 0.62),
        ("llama-3.1-8b", "mxfp4", 0.3, 0.45),
        ("llama-3.1-8b", "experts_int8", 1, 1),
        ("qwen3-30b-a3b", "experts_int8", 0.5, 0.55),
        ("qwen3-30b-a3b", "int8_per_channel_weight_only", 0.5, 0.55),
        ("qwen3-30b-a3b", "nvfp4_per_token", 0.28, 0.35),
    ],
)
def test_quantising_while_loading_makes_the_weights_smaller(name: str, method: str, least: float, most: float) -> None:
    plain = seen(name).weights
    assert plain is not None
    for args in (("--quantization", method), (f"-q={method}",), (f"-q{method}",)):
        weights = seen(name, *args).weights
        assert weights is not None
        assert least <= weights / plain <= most, args


def test_a_quantisation_that_nobody_here_understands_makes_the_weights_unknown() -> None:
    for args in (("--quantization", "torchao"), ("--quantization-config.linear", "mxfp8"), ("--offload-group-size=8",)):
        known = model("llama-3.1-8b", vllm_args=args)
        assert first_stage(known, *args).weights is None
        assert f"weights: not known for this model ({' '.join(args)[:14]}" in "\n".join(unknown_figures(known))
    assert seen("qwen3-8b-fp8", "--quantization", "fp8") == seen("qwen3-8b-fp8")


@pytest.mark.parametrize(
    ("name", "each"),
    [
        ("auto", 2),
        ("bfloat16", 2),
        ("fp8", 1),
        ("fp8_e5m2", 1),
        ("nvfp4", 0.5625),
        ("nvfp4_4over6", 0.5625),
        ("int8_per_token_head", 1 + 4 / 128),
        ("int4_per_token_head", 0.5 + 4 / 128),
    ],
)
def test_the_format_of_the_cache_decides_what_a_token_takes(name: str, each: float) -> None:
    kept = seen("llama-3.1-8b", "--kv-cache-dtype", name).kept
    assert kept is not None
    assert kept.token == ((32 * 8 * 2 * 128 * each, None),)


def test_a_format_of_the_cache_that_is_not_known_makes_it_unknown() -> None:
    for name, args in (("llama-3.1-8b", "turboquant_k8v4"), ("deepseek-v3", "nvfp4"), ("deepseek-v3", "fp8_ds_mla")):
        known = model(name, vllm_args=("--kv-cache-dtype", args))
        assert first_stage(known, "--kv-cache-dtype", args).kept is None
        assert f"--kv-cache-dtype {args}" in "\n".join(unknown_figures(known))


FLOAT_8 = {"num_bits": 8, "type": "float", "dynamic": False}
FLOAT_4 = {"num_bits": 4, "type": "float", "dynamic": False}


def of_checkpoint(name: str, quantization: dict[str, Any], *args: str) -> Model:
    """The model, quantised so."""
    looked_at = files(name)
    changed = replace(looked_at, config={**looked_at.config, "quantization_config": quantization})
    return known_model(changed, config(vllm_args=args))


@pytest.mark.parametrize(
    ("quantization", "each"),
    [
        ({"quant_method": "compressed-tensors", "kv_cache_scheme": FLOAT_8 | {"dynamic": True}}, 1),
        ({"quant_method": "compressed-tensors", "kv_cache_scheme": None}, 2),
        ({"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}, 1),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4", "kv_cache_scheme": FLOAT_8}, 1),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4", "kv_cache_scheme": FLOAT_4}, 0.5625),
        ({"quant_method": "modelopt", "quantization": {"kv_cache_quant_algo": "NVFP4"}}, 0.5625),
        ({"quant_method": "modelopt", "kv_cache_scheme": FLOAT_8 | {"dynamic": True}}, 2),
        ({"quant_method": "modelopt", "kv_cache_quant_algo": "INT8"}, 2),
        ({"quant_method": "fp8", "kv_cache_scheme": "static"}, 2),
    ],
)
def test_a_checkpoint_says_what_its_cache_is_unless_the_engine_is_told(
    quantization: dict[str, Any], each: float
) -> None:
    kept = first_stage(of_checkpoint("llama-3.1-8b", quantization)).kept
    assert kept is not None
    assert kept.token == ((32 * 8 * 2 * 128 * each, None),)
    told = ("--kv-cache-dtype", "bfloat16")
    plain = first_stage(of_checkpoint("llama-3.1-8b", quantization, *told), *told).kept
    assert plain is not None
    assert plain.token == ((32 * 8 * 2 * 128 * 2, None),)


def test_a_checkpoints_cache_that_compressed_keys_and_values_have_otherwise_is_unknown() -> None:
    known = of_checkpoint("deepseek-v3", {"quant_method": "modelopt", "kv_cache_quant_algo": "NVFP4"})
    assert known.shape.kv_unknown == ("--kv-cache-dtype nvfp4",)


def test_modelopts_nvfp4_weighs_as_much_as_it_does() -> None:
    wide = first_stage(of_checkpoint("llama-3.1-8b", {"quant_method": "modelopt", "quant_algo": "FP8"})).weights
    narrow = first_stage(of_checkpoint("llama-3.1-8b", {"quant_method": "modelopt", "quant_algo": "NVFP4"})).weights
    assert wide is not None
    assert narrow is not None
    assert 0.55 < narrow / wide < 0.7


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("llama-3.1-8b", ("--kv-cache-dtype-skip-layers", "0", "1")),
        ("llama-3.1-8b", ("--num-gpu-blocks-override", "100")),
        ("gemma-3-1b", ("--disable-hybrid-kv-cache-manager",)),
        ("qwen3.5-27b", ("--mamba-ssm-cache-dtype", "float32")),
        ("qwen3.5-27b", ("--mamba-cache-dtype=float32",)),
        ("nemotron-3-nano-30b", ("--mamba-cache-mode", "all")),
    ],
)
def test_an_option_that_changes_what_a_sequence_keeps_makes_it_unknown(name: str, args: tuple[str, ...]) -> None:
    known = model(name, vllm_args=args)
    assert known.shape.kv_unknown == (args[0].partition("=")[0],)
    assert known.knows_weights


def test_a_short_form_that_vllm_refuses_as_ambiguous_is_said_and_no_figure_is_made_without_it() -> None:
    known = model("llama-3.1-8b", vllm_args=("--quant", "fp8"))
    lines = unknown_figures(known)
    assert [line.partition(":")[0] for line in lines] == ["KV cache", "weights"]
    assert all("--quant is ambiguous: it could match --quantization, --quantization-config" in line for line in lines)
    assert unknown_figures(model("llama-3.1-8b", vllm_args=("--enable-p",))) == []


def test_an_option_for_states_or_windows_changes_nothing_of_a_model_without_them() -> None:
    args = ("--mamba-ssm-cache-dtype", "float32", "--disable-hybrid-kv-cache-manager")
    assert unknown_figures(model("llama-3.1-8b", vllm_args=args)) == []


def test_weights_in_the_hosts_memory_leave_room_on_the_gpu() -> None:
    plain, offloaded = seen("llama-3.1-8b"), seen("llama-3.1-8b", "--cpu-offload-gb", "5")
    assert plain.weights is not None
    assert plain.room is not None
    assert (offloaded.weights, offloaded.room) == (plain.weights - 5 * GIB, plain.room + 5 * GIB)
    assert seen("llama-3.1-8b", "--cpu-offload-gb=500").weights == 0


def test_a_stated_size_of_the_cache_is_the_room_whatever_share_of_the_gpu_is_vllms() -> None:
    assert seen("llama-3.1-8b", "--kv-cache-memory-bytes", "10G", "--gpu-memory-utilization", "0.1").room == 10 * GIB
    too_much = seen("llama-3.1-8b", "--kv-cache-mem", "200G").room
    assert too_much is not None
    assert 60 * GIB < too_much < 70 * GIB


OVERRIDES = '{"text_config": {"max_position_embeddings": 1010000}}'


@pytest.mark.parametrize(
    "args",
    [
        ("--hf-overrides", OVERRIDES),
        (f"--hf_overrides={OVERRIDES}",),
        ("--hf-overrides.text_config.max_position_embeddings", "1010000"),
        ("--hf-o.text_config.max_position_embeddings=1010000",),
    ],
)
def test_overrides_of_the_configuration_count(args: tuple[str, ...]) -> None:
    raw_config = {"model_type": "x", "text_config": raw("llama-3.1-8b")}
    found = replace(files("llama-3.1-8b"), config=raw_config)
    assert known_model(found, config()).longest_context == 131072
    changed = known_model(found, config(vllm_args=args))
    assert changed.longest_context == 1010000
    assert len(changed.shape.layers) == 32
    long = load({"max_model_len": "1M", "tensor_parallel_size": 1, "vllm_args": args}, environ={}).config
    with pytest.raises(ConfigError, match="1 invalid setting"):
        check_fit(changed, long, ())
    check_fit(changed, long.model_copy(update={"max_model_len": 1_000_000}), ())


def test_an_override_of_rope_parameters_replaces_them_whole() -> None:
    scaled = '{"rope_scaling": {"rope_type": "yarn", "factor": 4.0}, "max_position_embeddings": 40960}'
    assert model("qwen3-8b", vllm_args=("--hf-overrides", scaled)).longest_context == 40960
    linear = '{"rope_parameters": {"rope_type": "linear", "factor": 4.0}}'
    plain = model("qwen3-8b").longest_context
    assert plain is not None
    assert model("qwen3-8b", vllm_args=("--hf-overrides", linear)).longest_context == 4 * plain


def test_overrides_that_are_no_json_are_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        model("qwen3-8b", vllm_args=("--hf-overrides", "{"))
    assert "--hf-overrides after --: not JSON" in str(caught.value.details)


def test_a_length_that_vllm_is_to_choose_is_the_models_longest_and_never_too_long() -> None:
    known = model("llama-3.1-8b")
    wanted = config(max_model_len="auto", tensor_parallel_size="auto", pipeline_parallel_size="auto")
    assert wanted.max_model_len == -1
    assert engine_of(wanted, known).max_model_len == 131072
    check_fit(known, wanted, ())
    settled, layout = choose(known, wanted, [HostGpus("small", (24 * GIB,))])
    assert (settled.tensor_parallel_size, layout.rejected) == (1, "")
    assert "room for one sequence of about" in why(known, layout, settled)
    stated = wanted.model_copy(update={"max_model_len": 131072})
    with pytest.raises(ConfigError, match="does not fit"):
        choose(known, stated, [HostGpus("small", (24 * GIB,))])


def test_auto_takes_the_first_layout_for_the_stated_gpus() -> None:
    wanted = config(tensor_parallel_size="auto", pipeline_parallel_size="auto", cluster_gpus=TWO_BY_TWO)
    reporter = RecordingReporter()
    settled = resolve_sizes(model("llama-3.1-70b"), wanted, (), reporter)
    assert (settled.tensor_parallel_size, settled.pipeline_parallel_size) == (2, 2)
    assert (
        "layout: = tensor_parallel_size 2, pipeline_parallel_size 2: 70.6 B parameters, 32.9 GiB of weights a GPU, "
        "room for about" in reporter.text()
    )


def test_auto_for_one_size_leaves_the_other_as_it_is_said() -> None:
    wanted = config(tensor_parallel_size=1, pipeline_parallel_size="auto", cluster_gpus=TWO_BY_TWO)
    settled = resolve_sizes(model("llama-3.1-70b"), wanted, (), RecordingReporter())
    assert settled.tensor_parallel_size == 1
    assert settled.pipeline_parallel_size in (3, 4)


def test_auto_tells_vllm_of_layers_that_are_divided_by_memory() -> None:
    wanted = config(tensor_parallel_size="auto", pipeline_parallel_size="auto")
    hosts = [HostGpus("a", (80 * GIB,)), HostGpus("b", (80 * GIB,)), HostGpus("c", (24 * GIB,))]
    settled, layout = choose(model("llama-3.1-70b"), wanted, hosts)
    assert settled.environment["VLLM_PP_LAYER_PARTITION"] == ",".join(map(str, layout.partition))


def test_auto_that_finds_nothing_says_why_of_each_layout() -> None:
    wanted = config(tensor_parallel_size="auto", pipeline_parallel_size="auto", cluster_gpus=((24 * GIB,),))
    with pytest.raises(ConfigError, match=r"llama-3.1-70b does not fit the GPUs of host 1") as caught:
        resolve_sizes(model("llama-3.1-70b"), wanted, (), RecordingReporter())
    assert "TP 1 x PP 1: weights of 131.4 GiB" in str(caught.value.details)


def test_auto_without_a_model_or_without_the_gpus_memory_says_what_to_state() -> None:
    wanted = config(tensor_parallel_size="auto")
    with pytest.raises(ConfigError, match="the model is not checked"):
        resolve_sizes(None, wanted, (GIB,), RecordingReporter())
    with pytest.raises(ConfigError, match="memory of its GPUs could not be read") as caught:
        resolve_sizes(model("gpt2"), wanted, (), RecordingReporter())
    assert "--cluster-gpus" in str(caught.value.hint)


def test_sizes_that_seem_too_small_for_the_gpus_are_a_warning_and_no_more() -> None:
    reporter = RecordingReporter()
    wanted = config(tensor_parallel_size=1, pipeline_parallel_size=1)
    assert resolve_sizes(model("llama-3.1-70b"), wanted, (80 * GIB,), reporter) == wanted
    assert "warning: an estimate says that it will not fit: weights of 131.4 GiB" in reporter.text()
    resolve_sizes(
        model("gpt2", max_model_len=1024), config(max_model_len=1024), (80 * GIB,), quiet := RecordingReporter()
    )
    assert quiet.lines == []


def test_up_chooses_sizes_for_the_gpus_that_it_finds_on_the_host() -> None:
    host = good_host(*READY, probes=[probe_answer(gpus=2, cards=[card(), card(id="1")])])
    wanted = config(accelerator="nvidia", model="/m", tensor_parallel_size="auto", pipeline_parallel_size="auto")
    host.folders.add("/m")
    known = model("llama-3.1-70b")
    outcome = up_head(host, wanted, UpOptions(wait=False, look=Look(known)), RecordingReporter())
    assert (outcome.config.tensor_parallel_size, outcome.config.pipeline_parallel_size) == (2, 1)
    engine = next(spec for spec in host.created if spec.name == "vllmray-engine")
    assert "--tensor-parallel-size=2" in engine.argv


def test_a_stage_larger_than_the_heads_gpus_is_refused_unless_it_may_be_on_several_hosts() -> None:
    def head(**settings: Any) -> Any:
        host = good_host(*READY, probes=[probe_answer(gpus=2)])
        wanted = config(accelerator="nvidia", tensor_parallel_size=4, pipeline_parallel_size=1, **settings)
        return up_head(host, wanted, UpOptions(wait=False), RecordingReporter())

    with pytest.raises(ConfigError) as caught:
        head()
    assert "tensor_parallel_size 4, and fake://host has 2 GPUs" in str(caught.value.details)
    assert "use at most 2 and a larger pipeline_parallel_size, or --allow-tp-across-hosts" in str(caught.value.details)
    assert head(allow_tp_across_hosts=True).config.tensor_parallel_size == 4
    assert head(cluster_gpus=((GIB,) * 2, (GIB,) * 4)).config.tensor_parallel_size == 4


def reading_host(answer: dict[str, Any]) -> FakeHost:
    """A host that alone has the model's folder."""
    host = good_host(*READY)
    host.folders.add("/models/m")
    usual = host.programs["python3"]

    def python(record: Any, argv: tuple[str, ...]) -> Ran:
        if argv[-1] == "/models/m":
            return Ran((json.dumps(answer),))
        return usual(record, argv)

    host.programs["python3"] = python
    return host


ANSWER = {
    "config": json.dumps(raw("smollm2-135m")),
    "weight_bytes": 270_000_000,
    "weights": "safetensors",
    "problem": None,
}


def test_a_folder_that_only_the_host_has_is_read_there_before_anything_starts() -> None:
    host, reporter = reading_host(ANSWER), RecordingReporter()
    wanted = config(model="/models/m", tensor_parallel_size=2)
    with pytest.raises(ConfigError) as caught:
        up_head(host, wanted, UpOptions(look=Look(elsewhere=True)), reporter)
    assert "tensor_parallel_size 2 does not divide 9 attention heads; use 1 or 3" in str(caught.value.details)
    assert names(host) == []
    assert not any(call.startswith("start vllmray-head") for call in host.calls)
    fine = config(model="/models/m", tensor_parallel_size=1)
    known = look_there(host, fine, Look(elsewhere=True), reporter)
    assert known is not None
    assert "model /models/m: = 0.1 B parameters" in reporter.text()


def test_a_host_that_says_nothing_of_the_folder_is_an_error_with_its_words() -> None:
    host = reading_host(ANSWER)
    host.programs["python3"] = lambda record, argv: Ran(("Segmentation fault",), 139)
    with pytest.raises(HostError, match="the check of /models/m failed") as caught:
        look_there(host, config(model="/models/m"), Look(elsewhere=True), RecordingReporter())
    assert caught.value.details == "Segmentation fault"
