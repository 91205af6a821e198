"""Check settings against the model: refuse what vLLM would refuse, before anything starts; choose `auto` sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pydantic import ValidationError

from vllmray.config.explain import NamedLayer, Problem, config_error, origin, problems_of
from vllmray.config.models import ClusterConfig
from vllmray.config.values import AUTO_SIZE
from vllmray.engine.lengths import AUTO_LENGTH
from vllmray.engine.options import EngineOptions, ambiguous, engine_options, overridden
from vllmray.errors import ConfigError
from vllmray.hub.files import ModelFiles
from vllmray.model.layouts import HostGpus, Layout, Place, layout_on, layouts
from vllmray.model.memory import GIB, Engine, cache_dtype, cache_element_bytes
from vllmray.model.model import Model, model_of, parameters_of, unknown_figures
from vllmray.model.partition import parse_partition
from vllmray.model.rules import Broken, Parallelism, broken_rules
from vllmray.model.told import ONLINE
from vllmray.reporter import Reporter

HINT = "`vllmray plan` shows what fits; `--no-model-check` leaves it all to vLLM."
PARTITION = "VLLM_PP_LAYER_PARTITION"
LONG = "VLLM_ALLOW_LONG_MAX_MODEL_LEN"
LENGTH_UNKNOWN = 2048
"""Tokens that vLLM takes where config.json says none (vllm 0.32, vllm/config/model.py, _get_and_verify_max_len)."""
HELD_ELSEWHERE = ("ipc_cache",)
"""--load-format of engines whose weights another process has on the GPU (vllm, model_loader/weight_cache)."""
WITHOUT_WEIGHTS = ("dummy",)
"""--load-format of engines that read no weights."""


def known_model(files: ModelFiles, config: ClusterConfig) -> Model:
    """The model that the files describe.

    Raises:
        ConfigError: config.json is invalid, or there are no weights.
    """
    options = options_of(config)
    if files.weights == "none" and options.load_format not in WITHOUT_WEIGHTS:
        raise ConfigError(
            f"{files.where} has no weights of {files.model}",
            hint="Copy the whole model there (*.safetensors), or name another with --model.",
        )
    raw = overridden(files.config, options.hf_overrides)
    model = model_of(raw, files.model, files.weight_bytes)
    if _quantised_here(model, options):  # the checkpoint's bytes are no longer those on a GPU
        model = replace(model, given_correction=model.correction, checkpoint_bytes=None)
    return _without_the_unknown(model, options, engine_of(config, model), unclear=ambiguous(config.vllm_args))


def _quantised_here(model: Model, options: EngineOptions) -> bool:
    """Its weights are quantised while they are loaded."""
    return bool(options.quantization or options.quantization_config) and model.shape.config.quantization is None


def _without_the_unknown(model: Model, options: EngineOptions, engine: Engine, *, unclear: Sequence[str]) -> Model:
    """The model, with figures marked as not known where they depend on options that vllmray does not understand.

    Args:
        unclear: abbreviated options with several meanings.
    """
    weights = [*unclear]
    if _quantised_here(model, options):
        if options.quantization_config:
            weights.append("--quantization-config")
        elif options.quantization not in ONLINE:
            weights.append(f"--quantization {options.quantization}")
    if options.offload_group_size:
        weights.append("--offload-group-size")
    if weights:
        shape = replace(model.shape, weights_unknown=(*model.shape.weights_unknown, *weights))
        model = replace(model, shape=shape, given_correction=None, checkpoint_bytes=None)
    kept = [*unclear, *_changes_of_cache(model, options, engine)]
    return replace(model, shape=replace(model.shape, kv_unknown=(*model.shape.kv_unknown, *kept))) if kept else model


def _changes_of_cache(model: Model, options: EngineOptions, engine: Engine) -> list[str]:
    """Options that change what this model keeps of a sequence, or how many it may, and are not counted here."""
    states = [layer.state for layer in model.shape.layers]
    has_windows = any(cache.window for state in states for cache in state.caches)
    counts = {
        f"--kv-cache-dtype {cache_dtype(model.shape.config, engine)}": cache_element_bytes(model.shape.config, engine)
        is None,
        "--kv-cache-dtype-skip-layers": options.kv_cache_dtype_skip_layers,
        "--num-gpu-blocks-override": options.num_gpu_blocks_override,
        "--disable-hybrid-kv-cache-manager": options.disable_hybrid_kv_cache_manager and has_windows,
    }
    if any(state.fixed for state in states):
        counts["--mamba-cache-dtype"] = options.mamba_cache_dtype != "auto"
        counts["--mamba-ssm-cache-dtype"] = options.mamba_ssm_cache_dtype != "auto"
        counts["--mamba-cache-mode"] = options.mamba_cache_mode != "none"
    return [name for name, does in counts.items() if does]


def options_of(config: ClusterConfig, named: Sequence[NamedLayer] = ()) -> EngineOptions:
    """Options of vLLM itself, as far as they decide what fits; ConfigError for values that vLLM would refuse."""
    try:
        return engine_options(config.vllm_args)
    except ValidationError as error:
        problems = problems_of(error, named)
        shown = [replace(problem, where=f"--{problem.where.replace('_', '-')} after --") for problem in problems]
        raise config_error(shown) from None


def served_name(config: ClusterConfig) -> str:
    """What a request calls the model: the first of --served-model-name, else the model as it was named."""
    return next(iter(options_of(config).served_model_name), config.model)


def memory_share(config: ClusterConfig) -> float | None:
    """The part of each GPU's memory that must be free when the engine starts; None where vLLM asks for none of that.

    Source: vllm 0.33, vllm/v1/worker/utils.py, request_memory.
    """
    options = options_of(config)
    held_elsewhere = config.accelerator == "cpu" or options.load_format in HELD_ELSEWHERE
    return None if held_elsewhere else options.gpu_memory_utilization


def asked(config: ClusterConfig) -> Parallelism:
    """The options that the rules check. Sizes that are auto are 1 here.

    Raises:
        ConfigError: VLLM_PP_LAYER_PARTITION is not a list of numbers.
    """
    variables, options = config.environment, options_of(config)
    return Parallelism(
        tensor_parallel_size=config.tensor_parallel_size or 1,
        pipeline_parallel_size=config.pipeline_parallel_size or 1,
        max_model_len=config.max_model_len,
        enable_expert_parallel=options.enable_expert_parallel,
        whole_towers=options.mm_encoder_tp_mode == "data",
        layer_partition=_stated_partition(variables) if config.pipeline_parallel_size else None,
        allow_long_max_model_len=variables.get(LONG, "").lower() in ("1", "true"),
    )


def _stated_partition(variables: Mapping[str, str]) -> tuple[int, ...] | None:
    text = variables.get(PARTITION)
    if not text:
        return None
    try:
        return parse_partition(text)
    except ValueError:
        problem = Problem(f"{PARTITION} in --env", f"{text!r} is not a list of layers", "write it like 20,20,24")
        raise config_error([problem]) from None


def engine_of(config: ClusterConfig, model: Model) -> Engine:
    """What memory depends on. A length that vLLM is to choose is the model's longest here."""
    options = options_of(config)
    chooses = config.max_model_len == AUTO_LENGTH
    return Engine(
        max_model_len=(model.longest_context or LENGTH_UNKNOWN) if chooses else config.max_model_len,
        chooses_length=chooses,
        gpu_memory_utilization=options.gpu_memory_utilization,
        max_num_seqs=options.max_num_seqs,
        max_num_batched_tokens=options.max_num_batched_tokens,
        kv_cache_dtype=options.kv_cache_dtype,
        kv_cache_memory_bytes=options.kv_cache_memory_bytes,
        cpu_offload_bytes=int(options.cpu_offload_gb * GIB),
        quantization=options.quantization,
        dtype=options.dtype,
        enforce_eager=options.enforce_eager,
    )


def check_fit(model: Model, config: ClusterConfig, named: Sequence[NamedLayer]) -> None:
    """Refuse what vLLM would refuse of this model.

    Args:
        named: the layers that the settings came from, for their names.

    Raises:
        ConfigError: every broken rule, each with the nearest valid values.
    """
    broken = [
        each for each in broken_rules(model.shape, model.longest_context, asked(config)) if _left_to_vllm(each, config)
    ]
    if not broken and config.cluster_gpus and not config.is_auto:
        broken = _gpu_problems(config)
    if broken:
        problems = [Problem(origin(each.setting, named), each.what, each.fix) for each in broken]
        raise config_error(problems, hint=HINT)


def _left_to_vllm(broken: Broken, config: ClusterConfig) -> bool:
    return bool(getattr(config, broken.setting) != AUTO_SIZE)


def _gpu_problems(config: ClusterConfig) -> list[Broken]:
    """The world size against the GPUs that are stated, in sum and a host."""
    counts = [len(host) for host in config.cluster_gpus]
    size, stages, total = config.tensor_parallel_size, config.pipeline_parallel_size, sum(counts)
    if size * stages > total:
        what = f"{size} x {stages} GPUs are more than the {total} of cluster_gpus"
        return [Broken("pipeline_parallel_size", what, f"use at most {max(total // size, 1)}")]
    fitting = sum(count // size for count in counts)
    if fitting >= stages or config.allow_tp_across_hosts:
        return []
    listed = ", ".join(map(str, counts))
    what = f"tensor_parallel_size {size}: hosts of {listed} GPUs hold only {fitting} of {stages} stages"
    return [Broken("tensor_parallel_size", what, f"use at most {max(counts)}, or --allow-tp-across-hosts")]


def check_span(config: ClusterConfig, gpus: int, where: str, named: Sequence[NamedLayer]) -> None:
    """Refuse a stage that the head's GPUs can't hold: the head carries the first ones.

    Args:
        gpus: of the head.
        where: the head's host.

    Raises:
        ConfigError: unless stages may be on several hosts, or the hosts' GPUs are stated and one holds a stage.
    """
    size = config.tensor_parallel_size
    if size <= gpus or config.allow_tp_across_hosts or config.cluster_gpus:
        return
    problem = Problem(
        origin("tensor_parallel_size", named),
        f"tensor_parallel_size {size}, and {where} has {gpus} GPU{'' if gpus == 1 else 's'}: every layer of a stage on "
        "several hosts would wait for the network",
        f"use at most {gpus} and a larger pipeline_parallel_size, or --allow-tp-across-hosts, or state the hosts' GPUs "
        "with --cluster-gpus",
    )
    raise config_error([problem], hint=HINT)


def choose(model: Model, config: ClusterConfig, hosts: Sequence[HostGpus]) -> tuple[ClusterConfig, Layout]:
    """The settings with sizes that are auto chosen for these GPUs: of the layouts that can serve, the first.

    Raises:
        ConfigError: none can; it says why of each.
    """
    found = ranked(model, config, hosts)
    fitting = [layout for layout in found if not layout.rejected and _as_said(layout, config)]
    if not fitting:
        reasons = [
            f"TP {each.tensor_parallel_size} x PP {each.pipeline_parallel_size}: {each.rejected}"
            for each in found
            if _as_said(each, config) and each.rejected
        ]
        raise ConfigError(
            f"{model.name} does not fit the GPUs of {', '.join(host.name for host in hosts)}",
            details="\n".join(reasons) or "no layout has these sizes",
            hint="Add hosts (--cluster-gpus), take a smaller or quantised model, or lower --max-model-len.",
        )
    return with_layout(config, fitting[0]), fitting[0]


def with_layout(config: ClusterConfig, layout: Layout) -> ClusterConfig:
    """The settings with a layout's sizes, and its partition where vLLM would make another."""
    sizes: dict[str, object] = {
        "tensor_parallel_size": layout.tensor_parallel_size,
        "pipeline_parallel_size": layout.pipeline_parallel_size,
    }
    if not layout.is_even and PARTITION not in config.environment:
        sizes["env"] = (*config.env, f"{PARTITION}={','.join(map(str, layout.partition))}")
    return config.model_copy(update=sizes)


def resolve_sizes(
    model: Model | None, config: ClusterConfig, memory: Sequence[int], reporter: Reporter
) -> ClusterConfig:
    """The settings with their sizes, for a host whose GPUs have that memory; a warning when it seems too little, a
    note on what is not known of the model.

    Args:
        memory: bytes of each of the host's GPUs; empty when that could not be read.

    Raises:
        ConfigError: sizes are auto and can't be chosen.
    """
    if not config.is_auto:
        problem = _expected_problem(model, config, memory)
        if problem:
            reporter.warning(f"an estimate says that it will not fit: {problem}")
        for line in unknown_figures(model) if model else ():
            reporter.note(line)
        return config
    hosts = stated_hosts(config) or ([HostGpus("this host", tuple(memory))] if memory else [])
    if model is None or not hosts:
        what = "the model is not checked" if model is None else "the memory of its GPUs could not be read"
        raise ConfigError(
            f"parallel sizes can't be chosen: {what}",
            hint="State the GPUs (--cluster-gpus 2x80GiB,2x80GiB), or the sizes."
            if model
            else "Leave out --no-model-check, or state the sizes.",
        )
    with reporter.step("layout") as step:
        config, layout = choose(model, config, hosts)
        step.result(why(model, layout, config))
    return config


def _expected_problem(model: Model | None, config: ClusterConfig, memory: Sequence[int]) -> str:
    """Why the model would not fit if every host had GPUs like this one's; empty when it would, or is not known."""
    if model is None or not memory:
        return ""
    places = [Place(f"host {number}", min(memory)) for number in range(1, config.pipeline_parallel_size + 1)]
    return layout_on(model, places, engine_of(config, model), asked(config)).rejected


def _as_said(layout: Layout, config: ClusterConfig) -> bool:
    return config.tensor_parallel_size in (AUTO_SIZE, layout.tensor_parallel_size) and (
        config.pipeline_parallel_size in (AUTO_SIZE, layout.pipeline_parallel_size)
    )


def ranked(model: Model, config: ClusterConfig, hosts: Sequence[HostGpus]) -> list[Layout]:
    """Every layout over these hosts, the best first."""
    return layouts(model, hosts, engine_of(config, model), asked(config), across=config.allow_tp_across_hosts)


def why(model: Model, layout: Layout, config: ClusterConfig) -> str:
    """The chosen layout in one line."""
    heaviest = max((stage.weights or 0 for stage in layout.stages), default=0) / GIB
    weights = f"{heaviest:.1f} GiB of weights a GPU, " if model.knows_weights else ""
    replicas = f"; the GPUs have room for {layout.replicas} replicas" if layout.replicas > 1 else ""
    return (
        f"tensor_parallel_size {layout.tensor_parallel_size}, pipeline_parallel_size {layout.pipeline_parallel_size}: "
        f"{parameters_of(model)}, {weights}{_room(model, layout, engine_of(config, model))}{replicas}"
    )


def _room(model: Model, layout: Layout, engine: Engine) -> str:
    if layout.sequences is None or layout.longest_context is None:
        return "; ".join(unknown_figures(model))
    if engine.chooses_length and layout.longest_context < engine.max_model_len:
        return f"room for one sequence of about {layout.longest_context} tokens, which vLLM takes as max_model_len"
    return f"room for about {layout.sequences} sequences of {engine.max_model_len} tokens"


def stated_hosts(config: ClusterConfig) -> list[HostGpus]:
    """The hosts of cluster_gpus, by number."""
    return [HostGpus(f"host {number}", memory) for number, memory in enumerate(config.cluster_gpus, 1)]
