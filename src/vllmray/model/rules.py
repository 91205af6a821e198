"""Rules by which vLLM refuses settings, each with its source: checked with config.json alone, before anything starts.

vLLM enforces the first rule when it builds its configuration, most of the others when a worker builds the layers, in
that worker's log. Sources are files of vllm 0.32 and 0.33.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from math import gcd
from typing import Literal

from vllmray.model import parts
from vllmray.model.layers import Shape
from vllmray.model.partition import even_partition
from vllmray.model.unsupported import WITHOUT_STAGES

Setting = Literal["tensor_parallel_size", "pipeline_parallel_size", "max_model_len", "vllm_args", "env"]
SHOWN = 6
"""How many valid values a problem names: the nearest ones."""
VOCABULARY_PADDING = 64
EXPERT_WIDTH = "expert width"
FINEST_BLOCK = 32
"""Experts whose part is not a multiple of the block get finer ones, down to this (vllm/model_executor/layers/fused_moe/
oracle/fp8.py, refine_fp8_moe_block_shape)."""
WITHOUT_COPIES = ("gpt_oss",)
"""Families whose key-value heads are not copied (vllm/model_executor/models/gpt_oss.py, OAIAttention)."""
WHOLE_TOWERS = frozenset(
    {
        *("InternVLChatModel", "H2OVLChatModel", "SkyworkR1VChatModel", "NVLM_D", "KimiK25ForConditionalGeneration"),
        "MuseGlimmerForConditionalGeneration",
    }
)
"""Architectures whose vision tower is whole on each GPU where its heads can't be divided (vllm/model_executor/models/
intern_vit.py, InternParallelAttention; vision.py, is_vit_use_data_parallel)."""
BY_GROUPS = ("awq", "gptq", "awq_marlin", "gptq_marlin", "compressed-tensors", "auto-round", "inc", "quark")


@dataclass(frozen=True, slots=True)
class Parallelism:
    """The requested vLLM options that the model may not support."""

    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    max_model_len: int | None = None
    """Tokens; None, or -1, leaves it to vLLM."""
    enable_expert_parallel: bool = False
    whole_towers: bool = False
    """--mm-encoder-tp-mode data: each GPU has the whole vision tower."""
    layer_partition: tuple[int, ...] | None = None
    """VLLM_PP_LAYER_PARTITION: layers of each stage."""
    allow_long_max_model_len: bool = False
    """VLLM_ALLOW_LONG_MAX_MODEL_LEN."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A broken rule: the setting, what is wrong with it, and what to use instead."""

    setting: Setting
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.what}: {self.fix}"


def broken_rules(shape: Shape, longest_context: int | None, asked: Parallelism) -> list[Broken]:
    """Every rule that is broken.

    Args:
        longest_context: of the model, in tokens; None when it is not known.
    """
    broken = []
    reasons = tensor_problems(shape, asked)
    if reasons:
        sizes = tensor_sizes(shape, asked)
        named = f"tensor_parallel_size {asked.tensor_parallel_size} "
        broken += [
            Broken("tensor_parallel_size", named + reason, f"use {_choices(sizes, asked)}") for reason in reasons
        ]
    return broken + [found for rule in _OTHERS if (found := rule(shape, longest_context, asked))]


def tensor_problems(shape: Shape, asked: Parallelism) -> list[str]:
    """Why the GPUs of a stage can't share its layers, in words that follow "tensor_parallel_size 2"."""
    return [reason for rule in _TENSOR_RULES if (reason := rule(shape, asked))]


def tensor_sizes(shape: Shape, asked: Parallelism) -> list[int]:
    """Every tensor_parallel_size that no rule forbids, whatever is asked for."""
    most = parts.heads_of(shape.config) or shape.config.hidden_size
    sizes = (size for size in range(1, min(most, 1024) + 1) if most % size == 0)
    return [size for size in sizes if not tensor_problems(shape, replace(asked, tensor_parallel_size=size))]


def _choices(sizes: list[int], asked: Parallelism) -> str:
    nearest = sorted(sorted(sizes, key=lambda size: abs(size - asked.tensor_parallel_size))[:SHOWN])
    *first, last = (str(size) for size in nearest)
    return f"{', '.join(first)} or {last}" if first else last


def _heads(shape: Shape, asked: Parallelism) -> str | None:
    """vllm/config/model.py, verify_with_parallel_config."""
    heads = parts.heads_of(shape.config)
    return f"does not divide {heads} attention heads" if heads % asked.tensor_parallel_size else None


def _kv_heads(shape: Shape, asked: Parallelism) -> str | None:
    """Fewer key-value heads than GPUs are copied (vllm/model_executor/layers/linear.py, QKVParallelLinear)."""
    size = asked.tensor_parallel_size
    for heads in sorted({layer.state.heads for layer in shape.layers if layer.state.heads}):
        if heads > size and heads % size:
            return f"does not divide {heads} key-value heads"
        if heads < size and shape.config.model_type in WITHOUT_COPIES:
            return f"is more than the {heads} key-value heads, which vLLM does not copy for {shape.config.model_type}"
        if heads < size and size % heads:
            return (
                f"is not a multiple of {heads} key-value heads, which are copied to every GPU beyond the first {heads}"
            )
    return None


def _recurrent_heads(shape: Shape, asked: Parallelism) -> str | None:
    """vllm/model_executor/layers/mamba/mamba_mixer2.py and mamba_utils.py; Mamba-1 divides its width. Kimi's and
    DeepSeek V4's: vllm/models/kimi_k3/amd/kda.py, vllm/models/deepseek_v4/attention.py.
    """
    config, size, mixers = shape.config, asked.tensor_parallel_size, {layer.mixer for layer in shape.layers}
    if "linear" in mixers:
        for name, heads in (("key", config.linear_num_key_heads), ("value", config.linear_num_value_heads)):
            if heads and heads % size:
                return f"does not divide {heads} {name} heads of the linear attention"
    if "delta" in mixers and config.delta_attention and config.delta_attention.num_heads % size:
        return f"does not divide {config.delta_attention.num_heads} heads of the linear attention"
    if "compressed" in mixers and (config.o_groups or 1) % size:
        return f"does not divide {config.o_groups} groups of the attention output"
    if mixers & {"mamba", "parallel", "shared"}:
        heads = parts.mamba_heads(config)
        if heads and heads % size:
            return f"does not divide {heads} heads of the state space layers"
        if not heads and parts.mamba_inner(config) % size:
            return f"does not divide the state space layers' width of {parts.mamba_inner(config)}"
        groups = config.mamba_groups or 1
        if heads and groups != 1 and groups % size:
            return f"does not divide {groups} groups of the state space layers"
    return None


def _widths(shape: Shape, asked: Parallelism) -> list[tuple[str, int]]:
    """Widths of feed-forward layers that GPUs divide, by name; experts stay whole with expert parallelism."""
    config = shape.config
    kinds = {part.kind for layer in shape.layers for part in layer.parts}
    widths = []
    if "mlp" in kinds:
        widths += [("feed-forward width", width) for width in parts.dense_sizes(config)]
    if "experts" in kinds and not asked.enable_expert_parallel:
        widths.append((EXPERT_WIDTH, parts.expert_size(config)))
    if "shared" in kinds:
        widths.append(("shared expert's width", parts.shared_size(config)))
    return widths


def _feed_forward(shape: Shape, asked: Parallelism) -> str | None:
    """vllm/model_executor/layers/linear.py (divide) and fused_moe/config.py."""
    for name, width in _widths(shape, asked):
        if width % asked.tensor_parallel_size:
            return f"does not divide the {name} of {width}"
    return None


def _vocabulary(shape: Shape, asked: Parallelism) -> str | None:
    """Padded to a multiple of 64, then divided (vllm/model_executor/layers/vocab_parallel_embedding.py)."""
    padded = -(-shape.config.vocab_size // VOCABULARY_PADDING) * VOCABULARY_PADDING
    if padded % asked.tensor_parallel_size:
        return f"does not divide the vocabulary of {padded} (padded to a multiple of {VOCABULARY_PADDING})"
    return None


def _towers(shape: Shape, asked: Parallelism) -> str | None:
    """A vision tower's heads are divided as the model's are (vllm/model_executor/models/siglip.py, qwen2_5_vl.py)."""
    heads, size = shape.config.tower_heads, asked.tensor_parallel_size
    outputs = shape.config.tower_outputs
    if outputs and outputs % size:
        return f"does not divide {outputs} outputs of the audio tower"
    if not heads or heads % size == 0 or asked.whole_towers or shape.config.architecture in WHOLE_TOWERS:
        return None
    return f"does not divide {heads} heads of the vision tower (-- --mm-encoder-tp-mode data leaves that whole)"


def _quantisation(shape: Shape, asked: Parallelism) -> str | None:
    """Each GPU's part must hold whole groups along a row, or whole blocks."""
    quantization, size = shape.config.quantization, asked.tensor_parallel_size
    if quantization is None or size == 1:
        return None
    if quantization.weight_block_size:
        unit, words = max(quantization.weight_block_size), "blocks"
    elif quantization.method in BY_GROUPS and (quantization.group_size or 0) > 0:
        unit, words = int(quantization.group_size or 0), "groups"
    else:
        return None
    for name, share in _shares(shape, asked):
        refined = words == "blocks" and name == EXPERT_WIDTH and gcd(unit, share) >= FINEST_BLOCK
        if share % unit and not refined:
            return f"leaves {share} of the {name} to each GPU, not a whole number of quantisation {words} of {unit}"
    return None


def _shares(shape: Shape, asked: Parallelism) -> list[tuple[str, int]]:
    """Each GPU's share of quantised widths, by name.

    vllm/distributed/utils.py, verify_group_size_divides_partition, for groups; vllm/model_executor/layers/quantization/
    utils/fp8_utils.py, validate_fp8_block_shape, for blocks.
    """
    config, size = shape.config, asked.tensor_parallel_size
    value_dim = config.v_head_dim if config.kv_lora_rank else None
    attention = parts.heads_of(config) * (value_dim or parts.head_dim_of(config))
    return [(name, width // size) for name, width in [*_widths(shape, asked), ("attention output", attention)]]


_TENSOR_RULES = (_heads, _kv_heads, _recurrent_heads, _feed_forward, _vocabulary, _towers, _quantisation)


def _stages_supported(shape: Shape, _: int | None, asked: Parallelism) -> Broken | None:
    """vllm/config/model.py, verify_with_parallel_config: the model's class must have SupportsPP."""
    name = shape.config.architecture
    if asked.pipeline_parallel_size == 1 or name not in WITHOUT_STAGES:
        return None
    what = f"pipeline_parallel_size {asked.pipeline_parallel_size}: pipeline parallelism is not supported for {name}"
    return Broken("pipeline_parallel_size", what, "use 1")


def _enough_layers(shape: Shape, _: int | None, asked: Parallelism) -> Broken | None:
    """A stage without a layer is a GPU without work (vllm/distributed/utils.py, get_pp_indices, would make it)."""
    layers, stages = len(shape.layers), asked.pipeline_parallel_size
    if stages <= layers:
        return None
    return Broken(
        "pipeline_parallel_size", f"pipeline_parallel_size {stages} for {layers} layers", f"use 1 to {layers}"
    )


def _partition(shape: Shape, _: int | None, asked: Parallelism) -> Broken | None:
    """vllm/distributed/utils.py, get_pp_indices."""
    layers, stages, given = len(shape.layers), asked.pipeline_parallel_size, asked.layer_partition
    if given is None or stages > layers:
        return None
    example = ",".join(str(count) for count in even_partition(layers, stages))
    fix = f"give {stages} numbers that make {layers}, such as {example}"
    if len(given) != stages:
        return Broken("env", f"VLLM_PP_LAYER_PARTITION has {len(given)} numbers for {stages} pipeline stages", fix)
    if sum(given) != layers or min(given) < 0:
        return Broken("env", f"VLLM_PP_LAYER_PARTITION makes {sum(given)} of {layers} layers", fix)
    return None


def _context(_: Shape, longest: int | None, asked: Parallelism) -> Broken | None:
    """vllm/config/model.py, _get_and_verify_max_len."""
    wanted = asked.max_model_len
    if wanted is None or longest is None or wanted <= longest or asked.allow_long_max_model_len:
        return None
    fix = f"use at most {longest}, or --env VLLM_ALLOW_LONG_MAX_MODEL_LEN=1 if you know that it works"
    return Broken("max_model_len", f"max_model_len {wanted} is more than the model's {longest} tokens", fix)


def _experts(shape: Shape, _: int | None, asked: Parallelism) -> Broken | None:
    """vllm/config/model.py, _verify_with_expert_parallelism."""
    if not asked.enable_expert_parallel or shape.config.num_experts:
        return None
    return Broken("vllm_args", "--enable-expert-parallel, and the model has no experts", "leave it out")


_OTHERS: Iterable[Callable[[Shape, int | None, Parallelism], Broken | None]] = (
    _stages_supported,
    _enough_layers,
    _partition,
    _context,
    _experts,
)
