"""The KV cache or state of each kind of attention and state space layer, and its weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from vllmray.model import parts
from vllmray.model.config import TextConfig
from vllmray.model.parts import Part
from vllmray.model.schedule import Mixer

INDEX_BLOCK = 128
"""Elements of an indexer's key that share a scale of 4 bytes."""


@dataclass(frozen=True, slots=True)
class Cache:
    """The KV cache of a layer for each token, or for each few tokens."""

    part: Part
    """Elements of one state, and over how many GPUs they are divided."""
    window: int | None = None
    """Of at most so many tokens."""
    tokens: int = 1
    """Tokens that one state stands for."""
    element: int | None = None
    """Bytes; None: by the engine's --kv-cache-dtype."""
    block: int = 1
    """Tokens of one page..."""
    alignment: int = 1
    """...whose bytes are a multiple of so many."""

    def token_bytes(self, element: int | Fraction, tensor_parallel_size: int) -> Fraction:
        """Bytes a token on each GPU."""
        states = self.block // self.tokens or 1
        page = states * self.part.on_each(tensor_parallel_size) * (self.element or element)
        return Fraction(-(-page // self.alignment) * self.alignment, max(self.block, self.tokens))


@dataclass(frozen=True, slots=True)
class State:
    """The KV cache and recurrent state of a layer for one sequence."""

    caches: tuple[Cache, ...] = ()
    fixed: tuple[Part, ...] = ()
    """Whatever the length: a convolution's last inputs, a recurrent state, what an encoder has made."""

    @property
    def heads(self) -> int:
        """Key-value heads that GPUs share out; 0 where there are none to share."""
        return max((cache.part.ways or 0 for cache in self.caches if cache.part.ways != parts.WHOLE), default=0)


Mixing = tuple[State, tuple[Part, ...]]


def mixing(mixer: Mixer, config: TextConfig, index: int) -> Mixing:
    """(the layer's cache and state for a sequence, its weights that mix tokens)."""
    return _MIXERS[mixer](config, index)


def _attending(config: TextConfig, index: int) -> Mixing:
    """Attention to all tokens; Gemma 4's layers of that kind have heads of their own."""
    if config.block_configs is not None:
        group = config.block_configs[index].attention.n_heads_in_group
        kv_heads, head_dim = max(parts.heads_of(config) // (group or 1), 1), parts.head_dim_of(config)
    else:
        kv_heads = config.num_global_key_value_heads or parts.kv_heads_of(config)
        head_dim = config.global_head_dim or parts.head_dim_of(config)
    kept = _keys_and_values(kv_heads, head_dim, config.v_head_dim)
    return State((kept,)), parts.attention(config, kv_heads=kv_heads, head_dim=head_dim)


def _keys_and_values(kv_heads: int, head_dim: int, value_dim: int | None, window: int | None = None) -> Cache:
    """vllm/v1/kv_cache_interface.py, AttentionSpec."""
    return Cache(Part("cache", kv_heads * (head_dim + (value_dim or head_dim)), ways=kv_heads), window)


def _sliding(config: TextConfig, _: int) -> Mixing:
    """Attention to a window; MiMo V2's has heads of its own (vllm/model_executor/models/mimo_v2.py)."""
    kv_heads = config.swa_num_key_value_heads or parts.kv_heads_of(config)
    head_dim = config.swa_head_dim or parts.head_dim_of(config)
    value_dim = config.swa_v_head_dim or config.v_head_dim
    kept = _keys_and_values(kv_heads, head_dim, value_dim, config.sliding_window)
    made = parts.attention(
        config, kv_heads=kv_heads, head_dim=head_dim, heads=config.swa_num_attention_heads, value_dim=value_dim
    )
    return State((kept,)), made


def _latent(config: TextConfig, index: int) -> Mixing:
    """One vector that all heads share (vllm/v1/kv_cache_interface.py, MLAAttentionSpec), and the indexer's key with a
    scale of 4 bytes (vllm/model_executor/models/deepseek_v2.py, DeepseekV32IndexerCache).
    """
    width = (config.kv_lora_rank or 0) + (config.qk_rope_head_dim or 0)
    kept = [Cache(Part("cache", width, ways=parts.WHOLE))]
    indexes = has_indexer(config, index)
    if indexes:
        key = config.index_head_dim or 0
        kept.append(Cache(Part("cache", key + key // INDEX_BLOCK * 4, ways=parts.WHOLE), element=1))
    return State(tuple(kept)), parts.latent_attention(config, indexes=indexes)


SPARSE = ("sparse_attention", "sparse", "indexed_attention", "deepseek_sparse_attention")
"""Words of layers that look for their tokens with an indexer."""


def has_indexer(config: TextConfig, index: int) -> bool:
    """Whether a layer of sparse attention looks for its tokens itself, or takes those of a layer before it.

    Source: vllm/models/deepseek_v32/attention.py, skip_topk; vllm/models/hy_v4/nvidia/attention.py,
    compute_skip_topk_layers.
    """
    words = config.layer_types
    if config.model_type == "hy_v4" and (words is None or words[index] not in SPARSE):
        return False  # vllm/models/hy_v4/nvidia/attention.py: it attends to all tokens there
    if not config.index_head_dim or not config.index_n_heads:
        return False
    if config.indexer_types is not None and config.model_type == "hy_v4":
        return config.indexer_types[index] != "shared"
    if config.index_topk_pattern is not None:
        return config.index_topk_pattern[index] != "S"
    return max(index - config.index_skip_topk_offset + 1, 0) % config.index_topk_freq == 0


def _spread(config: TextConfig, _: int) -> Mixing:
    """MiniCPM3 keeps keys and values of every head, both as wide as a key."""
    heads, width = parts.heads_of(config), (config.qk_nope_head_dim or 0) + (config.qk_rope_head_dim or 0)
    return State((_keys_and_values(heads, width, width),)), parts.latent_attention(config, indexes=False)


def _compressed(config: TextConfig, index: int) -> Mixing:
    """DeepSeek V4: a window, and where tokens are compressed a state for each few of them with what is needed to make
    the next one, and an indexer where they are few.

    Source: vllm/models/deepseek_v4/attention.py and compressor.py, vllm/v1/attention/backends/mla/sparse_swa.py, with
    the cache type fp8_ds_mla, which NVIDIA's classes take by themselves: 584 bytes a state, pages of a multiple of 576.
    """
    ratio = max(config.compress_ratios[index], 1) if config.compress_ratios else 1
    packed = Part("cache", 584, ways=parts.WHOLE)
    kept = [Cache(packed, config.sliding_window, element=1, block=64, alignment=576)]
    if ratio > 1:
        kept.append(Cache(packed, tokens=ratio, element=1, block=256, alignment=576))
        kept.append(_unfinished(ratio, config.head_dim or 0))
    if ratio == parts.INDEXED_RATIO:
        key = config.index_head_dim or 0
        found = Part("cache", key + key // INDEX_BLOCK * 4, ways=parts.WHOLE)
        kept.append(Cache(found, tokens=ratio, element=1, block=256, alignment=576))
        kept.append(_unfinished(ratio, key))
    return State(tuple(kept)), parts.compressed_attention(config, ratio)


def _unfinished(ratio: int, width: int) -> Cache:
    """Sums and scores of tokens that are not compressed yet (CompressorStateCache), in 32 bits."""
    overlap = 2 if ratio == parts.INDEXED_RATIO else 1
    part = Part("cache", 2 * overlap * width, ways=parts.WHOLE)
    block = 4 if ratio == parts.INDEXED_RATIO else 8
    return Cache(part, overlap * ratio, element=4, block=block, alignment=576)


def _linear(config: TextConfig, _: int) -> Mixing:
    """vllm/model_executor/layers/mamba/mamba_utils.py, gated_delta_net_state_shape."""
    keys = (config.linear_num_key_heads or 0) * (config.linear_key_head_dim or 0)
    values = (config.linear_num_value_heads or 0) * (config.linear_value_head_dim or 0)
    conv = Part("conv", (2 * keys + values) * (config.conv_kernel - 1))
    recurrent = Part("recurrent", values * (config.linear_key_head_dim or 0))
    return State(fixed=(conv, recurrent)), parts.gated_delta_net(config)


def _delta(config: TextConfig, _: int) -> Mixing:
    """vllm/model_executor/layers/mamba/mamba_utils.py, kda_state_shape and kda_state_dtype: 32 bits."""
    delta = config.delta_attention
    heads, width, kernel = (delta.num_heads, delta.head_dim, delta.short_conv_kernel_size) if delta else (0, 0, 1)
    conv = Part("conv", 3 * heads * width * (kernel - 1))
    return State(fixed=(conv, Part("recurrent", heads * width * width))), parts.delta_attention(config)


def _mamba(config: TextConfig, _: int) -> Mixing:
    """vllm/model_executor/layers/mamba/mamba_utils.py, mamba1_state_shape and mamba2_state_shape."""
    inner, state, inputs = parts.mamba_inner(config), config.mamba_state_size or 16, config.conv_kernel - 1
    fixed = [Part("conv", inner * inputs), Part("recurrent", inner * state)]
    if parts.mamba_heads(config):
        groups = config.mamba_groups or 1
        fixed.append(Part("conv", 2 * groups * state * inputs, ways=groups))
    return State(fixed=tuple(fixed)), parts.mamba(config)


def _parallel(config: TextConfig, index: int) -> Mixing:
    attending, made = _attending(config, index)
    kept, also_made = _mamba(config, index)
    return State(attending.caches, kept.fixed), (*made, *also_made)


def _shared(config: TextConfig, index: int) -> Mixing:
    """Zamba2: a state space, and one of a few attention layers, which keeps its own tokens at each place."""
    heads, width = parts.heads_of(config), parts.head_dim_of(config)
    kept, made = _mamba(config, index)
    return State((_keys_and_values(heads, width, width),), kept.fixed), (*made, *parts.shared_attention(config, index))


def _conv(config: TextConfig, _: int) -> Mixing:
    """vllm/model_executor/layers/mamba/mamba_utils.py, short_conv_state_shape."""
    kept = Part("conv", config.hidden_size * ((config.conv_window or 1) - 1))
    return State(fixed=(kept,)), parts.short_convolution(config)


def _crossing(config: TextConfig, index: int) -> Mixing:
    """Whisper's decoder also attends to what its encoder has made, which is kept whole (vllm, CrossAttentionSpec)."""
    attending, made = _attending(config, index)
    heads = parts.heads_of(config)
    width = 2 * heads * parts.head_dim_of(config)
    crossed = Part("crossed", width * (config.max_source_positions or 0), ways=heads)
    return State(attending.caches, (crossed,)), (*made, *made)


_MIXERS: dict[Mixer, Callable[[TextConfig, int], Mixing]] = {
    "full": _attending,
    "sliding": _sliding,
    "latent": _latent,
    "spread": _spread,
    "compressed": _compressed,
    "linear": _linear,
    "delta": _delta,
    "mamba": _mamba,
    "parallel": _parallel,
    "shared": _shared,
    "conv": _conv,
    "crossing": _crossing,
    "encoder": lambda config, index: (State(), _attending(config, index)[1]),
    "none": lambda *_: (State(), ()),
}
