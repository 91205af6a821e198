"""Which layer of a model is what: its weights, and what it keeps of each sequence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from vllmray.model import parts
from vllmray.model.config import STATE_SPACE_ONLY, TextConfig
from vllmray.model.parts import Part

Mixer = Literal["full", "sliding", "latent", "linear", "mamba", "parallel", "conv", "none"]
"""What mixes tokens: attention to all or to a window of them, latent attention, a gated delta net, a state space, a
state space beside attention, a short convolution, or nothing."""

# Words of layer_types, layers_block_type and hybrid_override_pattern, as transformers' and NVIDIA's configurations
# have them.
WORDS: dict[str, Mixer] = {
    "full_attention": "full",
    "attention": "full",
    "full": "full",
    "global": "full",
    "sliding_attention": "sliding",
    "chunked_attention": "full",
    "local": "sliding",
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
LATENT = {
    *("deepseek_v2", "deepseek_v3", "deepseek_v32", "kimi_k2", "glm_moe_dsa", "glm4_moe_lite", "longcat_flash"),
    *("axk1", "pangu_ultra_moe", "glm5_next"),
}
"""Served by latent attention when they have a kv_lora_rank (vllm, ModelArchConfigConvertorBase.is_deepseek_mla)."""
# Every n-th layer attends to all tokens, where the file does not list layer_types (transformers' configurations).
FULL_EVERY = {"gemma2": 2, "gemma3_text": 6, "cohere2": 4, "gpt_oss": 2}
ENDS_EVERYWHERE = {
    *("gemma", "gemma2", "gemma3_text", "cohere", "cohere2", "bloom", "falcon", "gpt2", "gptj", "opt", "gpt_oss"),
    *(
        "mixtral",
        "qwen2_moe",
        "qwen3_moe",
        "qwen3_next",
        "phimoe",
        "olmoe",
        "stablelm",
        "granitemoe",
        "granitemoehybrid",
    ),
    *("jamba", "nemotron_h", "mamba", "falcon_mamba", "lfm2"),
}
"""Families whose classes make embedding and head on every stage (vllm 0.32, vllm/model_executor/models: no
PPMissingLayer in their place); tests/oracle weighs them."""
TIED_UNLESS_SAID = {
    *("gemma", "gemma2", "gemma3", "gemma3_text", "gpt2", "opt", "falcon", "bloom", "mpt", "cohere", "cohere2"),
    *("gpt_bigcode", "starcoder2", "lfm2", "phi3small", "smollm3", "mamba2", "mamba", "falcon_mamba"),
}


@dataclass(frozen=True, slots=True)
class State:
    """What a layer keeps of a sequence."""

    token: Part | None = None
    """Of each token: keys and values, of all heads or of the latent space."""
    window: int | None = None
    """Of at most so many tokens."""
    fixed: tuple[Part, ...] = ()
    """Whatever the length: a convolution's last inputs, a recurrent state."""

    @property
    def heads(self) -> int:
        """Key-value heads that GPUs share out; 0 where there are none to share."""
        return self.token.ways or 0 if self.token and self.token.ways != parts.WHOLE else 0


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer."""

    mixer: Mixer
    parts: tuple[Part, ...]
    """Its weights."""
    state: State


@dataclass(frozen=True, slots=True)
class Shape:
    """A model, layer by layer, and what is before and after the layers."""

    config: TextConfig
    layers: tuple[Layer, ...]
    embedding: int
    """Parameters; the GPUs of the first stage share them."""
    positions: int
    """Parameters of learned positions and of what is between the embedding and the layers, whole on every GPU."""
    tied: bool
    """The head is the embedding: one stage holds it once, and with more the last has it again."""

    @property
    def ends_everywhere(self) -> bool:
        """Every stage has the embedding and the head, whether it uses them or not."""
        return self.config.model_type in ENDS_EVERYWHERE

    @property
    def parameters(self) -> int:
        """In all."""
        inside = sum(part.count for layer in self.layers for part in layer.parts)
        return inside + self.embedding * (1 if self.tied else 2) + self.positions + self.config.hidden_size


def shape_of(config: TextConfig) -> Shape:
    """The model that a configuration describes."""
    mixers = _mixers(config)
    layers = tuple(_layer(config, index, mixer) for index, mixer in enumerate(mixers))
    tied = config.tie_word_embeddings
    if tied is None:
        tied = config.model_type in TIED_UNLESS_SAID
    return Shape(
        config, layers, config.vocab_size * (config.word_embed_proj_dim or config.hidden_size), _positions(config), tied
    )


def _positions(config: TextConfig) -> int:
    """Learned positions: GPT-2's and OPT's, which has two more (transformers, OPTLearnedPositionalEmbedding)."""
    extra = {"gpt2": 0, "opt": 2, "gpt_bigcode": 0}.get(config.model_type)
    learned = 0 if extra is None else ((config.max_position_embeddings or 0) + extra) * config.hidden_size
    inner = config.word_embed_proj_dim or config.hidden_size
    return learned + (2 * inner * config.hidden_size if inner != config.hidden_size else 0)


def _mixers(config: TextConfig) -> tuple[Mixer, ...]:
    count = config.num_hidden_layers
    if config.model_type in STATE_SPACE_ONLY:
        return tuple("mamba" for _ in range(count))
    words = config.hybrid_override_pattern or config.layer_types
    if words:
        return tuple(_settled(config, WORDS.get(word, "full")) for word in words[:count])
    if config.model_type == "falcon_h1":
        return tuple("parallel" for _ in range(count))
    return tuple(_settled(config, _scheduled(config, index)) for index in range(count))


def _settled(config: TextConfig, mixer: Mixer) -> Mixer:
    if mixer == "full" and config.kv_lora_rank and config.model_type in LATENT:
        return "latent"
    if mixer == "sliding" and not config.sliding_window:
        return "full"
    return mixer


def _scheduled(config: TextConfig, index: int) -> Mixer:
    """By the rules that stand for a list of layers."""
    if config.attn_layer_indices is not None:
        other: Mixer = "conv" if config.conv_window else "mamba"
        return "full" if index in config.attn_layer_indices else other
    if config.attn_layer_period:
        return "full" if index % config.attn_layer_period == config.attn_layer_offset else "mamba"
    if config.full_attention_interval:
        return "full" if (index + 1) % config.full_attention_interval == 0 else "linear"
    if not config.sliding_window or config.use_sliding_window is False:
        return "full"
    if config.use_sliding_window and config.max_window_layers is not None:
        return "sliding" if index >= config.max_window_layers else "full"
    every = config.sliding_window_pattern or FULL_EVERY.get(config.model_type)
    if isinstance(every, str):
        return "sliding" if every[index % len(every)] == "L" else "full"
    return "full" if every and (index + 1) % every == 0 else "sliding"


def _layer(config: TextConfig, index: int, mixer: Mixer) -> Layer:
    norms = Part("norm", 2 * config.hidden_size, ways=parts.WHOLE)
    state, mixing = _MIXERS[mixer](config)
    return Layer(mixer, (norms, *mixing, *_feed_forward(config, index)), state)


Mixing = tuple[State, tuple[Part, ...]]


def _attending(config: TextConfig, *, window: int | None = None) -> Mixing:
    kv_heads, head_dim = parts.kv_heads_of(config), parts.head_dim_of(config)
    if window is None:  # Gemma 4's layers that attend to all tokens have heads of their own
        head_dim = config.global_head_dim or head_dim
        kv_heads = config.num_global_key_value_heads or kv_heads
    width = head_dim + (config.v_head_dim or head_dim)
    made = parts.attention(config, kv_heads=kv_heads, head_dim=head_dim)
    return State(Part("cache", kv_heads * width, ways=kv_heads), window), made


def _latent(config: TextConfig) -> Mixing:
    """One vector that all heads share (vllm/v1/kv_cache_interface.py, MLAAttentionSpec)."""
    width = (config.kv_lora_rank or 0) + (config.qk_rope_head_dim or 0)
    return State(Part("cache", width, ways=parts.WHOLE)), parts.latent_attention(config)


def _linear(config: TextConfig) -> Mixing:
    """vllm/model_executor/layers/mamba/mamba_utils.py, gated_delta_net_state_shape."""
    keys = (config.linear_num_key_heads or 0) * (config.linear_key_head_dim or 0)
    values = (config.linear_num_value_heads or 0) * (config.linear_value_head_dim or 0)
    conv = Part("conv", (2 * keys + values) * (config.conv_kernel - 1))
    return State(fixed=(conv, Part("recurrent", values * (config.linear_key_head_dim or 0)))), parts.gated_delta_net(
        config
    )


def _mamba(config: TextConfig) -> Mixing:
    """vllm/model_executor/layers/mamba/mamba_utils.py, mamba1_state_shape and mamba2_state_shape."""
    inner, state, inputs = parts.mamba_inner(config), config.mamba_state_size or 16, config.conv_kernel - 1
    fixed = [Part("conv", inner * inputs), Part("recurrent", inner * state)]
    if parts.mamba_heads(config):
        groups = config.mamba_groups or 1
        fixed.append(Part("conv", 2 * groups * state * inputs, ways=groups))
    return State(fixed=tuple(fixed)), parts.mamba(config)


def _parallel(config: TextConfig) -> Mixing:
    attending, made = _attending(config)
    kept, also_made = _mamba(config)
    return State(attending.token, None, kept.fixed), (*made, *also_made)


def _conv(config: TextConfig) -> Mixing:
    """vllm/model_executor/layers/mamba/mamba_utils.py, short_conv_state_shape."""
    kept = Part("conv", config.hidden_size * ((config.conv_window or 1) - 1))
    return State(fixed=(kept,)), parts.short_convolution(config)


_MIXERS: dict[Mixer, Callable[[TextConfig], Mixing]] = {
    "full": _attending,
    "sliding": lambda config: _attending(config, window=config.sliding_window),
    "latent": _latent,
    "linear": _linear,
    "mamba": _mamba,
    "parallel": _parallel,
    "conv": _conv,
    "none": lambda _: (State(), ()),
}


def _feed_forward(config: TextConfig, index: int) -> tuple[Part, ...]:
    if config.model_type in STATE_SPACE_ONLY:
        return ()
    if config.hybrid_override_pattern:  # each layer is one thing: it mixes, or it feeds forward
        word = config.hybrid_override_pattern[index]
        if word == "E":
            return parts.experts(config)
        return parts.dense(config, parts.feed_forward_size(config)) if word == "-" else ()
    if config.num_experts and _is_sparse(config, index):
        return parts.experts(config)
    return parts.dense(config, parts.dense_size(config))


def _is_sparse(config: TextConfig, index: int) -> bool:
    """Whether a layer of a model with experts has them."""
    if config.moe_layers is not None:
        return index in config.moe_layers
    if config.mlp_only_layers and index in config.mlp_only_layers:
        return False
    if config.expert_layer_period:
        return index % config.expert_layer_period == config.expert_layer_offset
    every = config.moe_layer_freq
    if isinstance(every, tuple):
        return bool(every[index]) if index < len(every) else True
    if config.first_k_dense_replace is not None:
        return index >= config.first_k_dense_replace and index % (every or 1) == 0
    return (index + 1) % every == 0 if every else True
