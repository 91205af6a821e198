"""The kind of each layer of a model, in order: from a list in its config, or from a rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from vllmray.model.config import STATE_SPACE_ONLY, TextConfig
from vllmray.model.pooling import BOTH_WAYS

Mixer = Literal[
    "full",
    "sliding",
    "latent",
    "spread",
    "linear",
    "delta",
    "mamba",
    "parallel",
    "conv",
    "encoder",
    "compressed",
    "shared",
    "crossing",
    "none",
]
"""What mixes tokens: attention to all or to a window of them, latent attention, latent attention whose keys and values
are cached expanded, a gated delta net, Kimi's delta attention, a state space, a state space parallel to attention, a
short convolution, attention without a cache, compressed attention, a state space with attention whose weights are
shared, a decoder's attention with cross-attention to an encoder, or nothing."""

# Words of layer_types, layers_block_type and hybrid_override_pattern, as transformers' and NVIDIA's configurations
# have them. What a word means in some families only is decided below.
WORDS: dict[str, Mixer] = {
    "full_attention": "full",
    "attention": "full",
    "full": "full",
    "global": "full",
    "sliding_attention": "sliding",
    "sliding": "sliding",
    "local": "sliding",
    "chunked_attention": "full",
    "indexed_attention": "full",
    "deepseek_sparse_attention": "full",
    "sparse_attention": "full",
    "sparse": "full",
    "linear_attention": "linear",
    "mamba": "mamba",
    "mamba2": "mamba",
    "hybrid": "parallel",
    "conv": "conv",
    "mlp": "none",
    "moe": "none",
    "*": "full",
    "M": "mamba",
    "-": "none",
    "E": "none",
}
FEEDS_FORWARD = {"mlp": "dense", "moe": "experts", "-": "dense", "E": "experts"}
"""Words of a layer that does not mix tokens; where there is one, each layer of the model mixes or feeds forward."""
LATENT = frozenset(
    {
        *("deepseek_v2", "deepseek_v3", "deepseek_v32", "kimi_k2", "glm_moe_dsa", "glm4_moe_lite", "longcat_flash"),
        *("axk1", "pangu_ultra_moe", "glm5_next", "glm5_next_text", "kimi_linear", "bailing_hybrid", "hy_v4"),
        "dots3_note",
    }
)
"""Served by latent attention when they have a kv_lora_rank (vllm, ModelArchConfigConvertorBase.is_deepseek_mla)."""
SPREAD = frozenset({"minicpm3"})
"""Have a kv_lora_rank, and keep keys and values of every head (vllm/model_executor/models/minicpm3.py)."""
ENCODERS = frozenset(
    {
        *(
            "bert",
            "roberta",
            "xlm-roberta",
            "camembert",
            "modernbert",
            "nomic_bert",
            "gte",
            "snowflake",
            "new",
            "electra",
        ),
        "siglip_text_model",
    }
)
"""Attend both ways and keep nothing (vllm, EncoderOnlyAttention.get_kv_cache_spec gives no cache)."""
# Every n-th layer attends to all tokens, where the file does not list layer_types (transformers' configurations).
FULL_EVERY = {"gemma2": 2, "gemma3_text": 6, "cohere2": 4, "gpt_oss": 2}


ALIKE: dict[str, Mixer] = {"falcon_h1": "parallel", "whisper": "crossing", "deepseek_v4": "compressed"}
"""Families whose layers are all of one kind."""


def words_of(config: TextConfig) -> Sequence[str] | None:
    """A word, or a letter, for each layer; None where the file has no such list."""
    return config.hybrid_override_pattern or config.layer_types


def schedule(config: TextConfig) -> tuple[Mixer, ...]:
    """The kind of each layer; an unknown word counts as "full", and unknown_schedule reports it."""
    count = config.num_hidden_layers
    alike = _alike(config)
    if alike:
        return (alike,) * count
    words = words_of(config)
    if words:
        return tuple(_in_this_family(config, WORDS.get(word, "full")) for word in words[:count])
    return tuple(_in_this_family(config, _scheduled(config, index)) for index in range(count))


def _alike(config: TextConfig) -> Mixer | None:
    """The kind of every layer in a family whose layers are alike."""
    if config.model_type in STATE_SPACE_ONLY:
        return "mamba"
    if config.model_type in ENCODERS or config.architecture in BOTH_WAYS:
        return "encoder"
    return ALIKE.get(config.model_type)


def unknown_schedule(config: TextConfig) -> tuple[str, ...]:
    """Why the kinds of the layers are not known; empty where they are."""
    words = sorted({word for word in words_of(config) or () if word not in WORDS})
    reasons = [f"unknown layer type {word!r}" for word in words]
    if config.model_type == "deepseek_v4" and not _are_compressed(config):
        reasons.append("its compression is not understood")
    mixers = set(schedule(config))
    if config.kv_lora_rank and "full" in mixers and config.model_type not in SPREAD:
        reasons.append(f"kv_lora_rank is not understood for {config.model_type}")
    if words_of(config) is None and mixers <= {"full", "sliding", "latent"}:
        kinds = {"a convolution": config.conv_window, "linear attention": config.linear_num_value_heads}
        kinds["a state space"] = config.mamba_state_size or config.mamba_heads
        reasons += [f"config.json does not say which layers have {kind}" for kind, size in kinds.items() if size]
    if "linear" in mixers and not (config.linear_num_value_heads and config.linear_value_head_dim):
        reasons.append("config.json has no heads of the linear attention")
    if mixers & {"mamba", "parallel", "shared"} and not config.mamba_state_size:
        reasons.append("config.json has no size of the state space")
    if config.index_head_dim and not mixers & {"latent", "compressed"}:
        reasons.append(f"index_head_dim is not understood for {config.model_type}")
    return tuple(reasons)


def _in_this_family(config: TextConfig, mixer: Mixer) -> Mixer:
    """What the word means in this family."""
    if mixer == "full" and config.kv_lora_rank:
        return "latent" if config.model_type in LATENT else "spread" if config.model_type in SPREAD else mixer
    if mixer == "sliding" and not config.sliding_window:
        return "full"
    if mixer == "parallel" and config.model_type == "zamba2":
        return "shared"
    if mixer == "linear" and not config.linear_num_value_heads:
        if config.delta_attention:
            return "delta"
        return "mamba" if config.mamba_state_size else mixer
    return mixer


def _scheduled(config: TextConfig, index: int) -> Mixer:
    """The kind of a layer by the keys that replace a list of layers."""
    if config.block_configs is not None:
        return "none" if config.block_configs[index].attention.no_op else "full"
    if config.linear_attn_config is not None:
        return "full" if index + 1 in config.linear_attn_config.full_attn_layers else "delta"
    if config.attn_layer_indices is not None:
        other: Mixer = "conv" if config.conv_window else "mamba"
        return "full" if index in config.attn_layer_indices else other
    if config.attn_layer_period:
        return "full" if index % config.attn_layer_period == config.attn_layer_offset else "mamba"
    if config.full_attention_interval:
        return "full" if (index + 1) % config.full_attention_interval == 0 else "linear"
    return _windowed(config, index)


def _windowed(config: TextConfig, index: int) -> Mixer:
    """Attention to all tokens, or to a window of them."""
    if config.hybrid_layer_pattern is not None:  # vllm/model_executor/models/mimo_v2.py: 1 has a window
        return "sliding" if config.hybrid_layer_pattern[index] == 1 else "full"
    if not config.sliding_window or config.use_sliding_window is False:
        return "full"
    if config.use_sliding_window and config.max_window_layers is not None:
        return "sliding" if index >= config.max_window_layers else "full"
    every = config.sliding_window_pattern or FULL_EVERY.get(config.model_type)
    if isinstance(every, str):
        return "sliding" if every[index % len(every)] == "L" else "full"
    return "full" if every and (index + 1) % every == 0 else "sliding"


def _are_compressed(config: TextConfig) -> bool:
    """Whether the ratios are those that vLLM 0.32 has (vllm/models/deepseek_v4/compressor.py)."""
    return bool(config.compress_ratios) and set(config.compress_ratios or ()) <= {0, 1, 4, 128}
