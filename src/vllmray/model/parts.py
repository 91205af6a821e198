"""What layers are made of: how many elements, and over how many GPUs of a stage they can be divided.

Shapes as vLLM's layers make them (vllm 0.32 and 0.33, vllm/model_executor/layers/linear.py and
vllm/model_executor/models/). Biases are left out: they are below a tenth of a percent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vllmray.model.config import STATE_SPACE_ONLY, TextConfig

Kind = Literal[
    "attention",
    "mlp",
    "experts",
    "shared",
    "router",
    "latent",
    "head",
    "norm",
    "embedding",
    "cache",
    "conv",
    "recurrent",
    "crossed",
]
"""The last four are not weights but cache and state of a layer for a sequence."""
INDEXED_RATIO = 4
"""DeepSeek V4: layers that compress so many tokens into one look for theirs with an indexer."""
MXFP4_BLOCK = 32
"""Elements that share a scale: an expert's width on a GPU is a multiple (vllm/model_executor/layers/quantization/
mxfp4.py; kernels of some GPUs round further up)."""
WHOLE = 1
"""ways: every GPU of a stage holds all of it."""

# Families whose feed-forward layers have two matrices; the others have a gate as well.
WITHOUT_GATE = {
    *("gpt2", "opt", "falcon", "bloom", "gpt_neox", "gptj", "gpt_neo", "mpt", "phi", "starcoder2", "gpt_bigcode"),
    *(
        "clip_text_model",
        "siglip_text_model",
        "apertus",
        "cosmos3_edge_text",
        "arcee",
        "jais2",
        "whisper",
        "bert",
        "roberta",
        "xlm-roberta",
    ),
    *(
        "codegen",
        "persimmon",
        "nemotron",
        "nemotron_h",
        "nemotron_h_omni",
        "RefinedWeb",
        "RefinedWebModel",
        "xglm",
        "biogpt",
    ),
}


LEARNED_POSITIONS = ("bert", "roberta", "xlm-roberta")
"""Encoders whose positions are learned."""
NEMOTRON_H = ("nemotron_h", "nemotron_h_omni")


GATED_ATTENTION = {"qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"}
"""Families whose attention has an output gate unless they say otherwise."""


@dataclass(frozen=True, slots=True)
class Part:
    """Elements of one kind that are divided in one way."""

    kind: Kind
    count: int
    ways: int | None = None
    """Over how many GPUs they can be divided; beyond that they are copied. None: over any number."""
    grain: int = 1
    """Each GPU's share is rounded up to a multiple of so many."""

    def on_each(self, tensor_parallel_size: int) -> int:
        """Elements on each GPU of a stage."""
        ways = tensor_parallel_size if self.ways is None else min(tensor_parallel_size, self.ways)
        share = -(-self.count // ways)
        return -(-share // self.grain) * self.grain


def heads_of(config: TextConfig) -> int:
    """Attention heads, 0 in a model without attention."""
    return config.num_attention_heads or 0


def kv_heads_of(config: TextConfig) -> int:
    """Key-value heads; Falcon's multi_query is one (vllm, FalconModelArchConfigConvertor)."""
    is_falcon = config.model_type in ("falcon", "RefinedWeb", "RefinedWebModel")
    if is_falcon and config.multi_query and not config.new_decoder_architecture:
        return 1
    if config.model_type == "chatglm" and config.multi_query_attention is False:
        return heads_of(config)
    return config.num_key_value_heads or heads_of(config)


def head_dim_of(config: TextConfig) -> int:
    """Width of a head."""
    return config.head_dim or config.hidden_size // max(heads_of(config), 1)


def feed_forward_size(config: TextConfig) -> int:
    """Width of a dense feed-forward layer; families that do not say it have four times the hidden size."""
    size = config.intermediate_size
    if size is not None and config.block_auto_adjust_ff_dim:  # LFM2 (vllm/model_executor/models/lfm2.py, Lfm2MLP)
        return -(-(2 * size // 3) // config.block_multiple_of) * config.block_multiple_of
    if size is not None:
        return size // 2 if config.model_type == "molmo" else size  # what it says is gate and width together
    return int(config.hidden_size * (config.expansion_ratio or 4))


def dense_sizes(config: TextConfig) -> list[int]:
    """Widths of all dense feed-forward layers."""
    if config.block_configs is None:
        return [dense_size(config)]
    return sorted({block.feed_forward_size(config.hidden_size) for block in config.block_configs} - {0}) or [0]


def dense_size(config: TextConfig) -> int:
    """The same in a model that may have experts in other layers; the widest where they differ."""
    if config.block_configs is not None:
        return dense_sizes(config)[-1]
    if config.model_type == "granitemoehybrid" and config.shared_expert_intermediate_size:
        return config.shared_expert_intermediate_size
    return config.intermediate_size_mlp or feed_forward_size(config)


def attention(
    config: TextConfig, *, kv_heads: int, head_dim: int, heads: int | None = None, value_dim: int | None = None
) -> tuple[Part, ...]:
    """Queries, keys, values and output of grouped-query attention; keys and values are copied beyond their heads."""
    value_dim = value_dim or config.v_head_dim or head_dim
    hidden, heads = config.hidden_size, heads or heads_of(config)
    gate = 2 if config.attn_output_gate or config.model_type in GATED_ATTENTION else 1
    return (
        Part("attention", hidden * heads * (head_dim * gate + value_dim)),
        Part("attention", hidden * kv_heads * (head_dim + value_dim), ways=kv_heads),
    )


def latent_attention(config: TextConfig, *, indexes: bool) -> tuple[Part, ...]:
    """Multi-head latent attention: the projections into the latent space are on every GPU.

    Source: vllm, vllm/model_executor/models/deepseek_v2.py, DeepseekV2MLAAttention (ReplicatedLinear, and
    ColumnParallelLinear for what leaves the latent space); vllm/models/hy_v4/nvidia/attention.py for the gate.

    Args:
        indexes: the layer has an indexer.
    """
    hidden, heads = config.hidden_size, heads_of(config)
    latent, rope = config.kv_lora_rank or 0, config.qk_rope_head_dim or 0
    nope, value = config.qk_nope_head_dim or 0, config.v_head_dim or 0
    query = config.q_lora_rank
    into = hidden * (latent + rope) + (hidden * query if query else 0)
    out_of = (query or hidden) * heads * (nope + rope) + latent * heads * (nope + value) + heads * value * hidden
    if config.gated_mla:
        out_of += hidden * heads * (1 if config.gating_type == "headwise" else value)
    return (Part("attention", into + (_indexer(config) if indexes else 0), ways=WHOLE), Part("attention", out_of))


def _indexer(config: TextConfig) -> int:
    """The indexer of sparse attention (DeepSeek V3.2), which no GPU shares with another."""
    heads, width, hidden = config.index_n_heads or 0, config.index_head_dim or 0, config.hidden_size
    return (config.q_lora_rank or hidden) * heads * width + hidden * width + hidden * heads


def compressed_attention(config: TextConfig, ratio: int) -> tuple[Part, ...]:
    """DeepSeek V4's (vllm/models/deepseek_v4/attention.py and compressor.py)."""
    hidden, heads, width, query = config.hidden_size, heads_of(config), head_dim_of(config), config.q_lora_rank or 0
    overlap = 2 if ratio == INDEXED_RATIO else 1
    whole = hidden * (query + width)
    compressor = 2 * overlap * hidden * width if ratio > 1 else 0
    if ratio == INDEXED_RATIO:
        index_heads, index_width = config.index_n_heads or 0, config.index_head_dim or 0
        whole += query * index_heads * index_width + hidden * (index_heads + 2 * overlap * index_width)
    groups, out = config.o_groups or 1, config.o_lora_rank or 0
    return (
        Part("attention", whole, ways=WHOLE),
        Part("norm", compressor, ways=WHOLE),  # not quantised
        Part("attention", query * heads * width + heads * width * out + groups * out * hidden),
    )


def delta_attention(config: TextConfig) -> tuple[Part, ...]:
    """Kimi's (vllm/models/kimi_k3/amd/kda.py): what the gates and the decay pass through is on every GPU."""
    delta, hidden = config.delta_attention, config.hidden_size
    if delta is None:
        return ()
    inner, narrow = delta.num_heads * delta.head_dim, delta.head_dim
    shared = hidden * (4 * inner + delta.num_heads) + 2 * narrow * inner + 3 * inner * delta.short_conv_kernel_size
    return (Part("attention", shared), Part("attention", 2 * hidden * narrow, ways=WHOLE))


def shared_attention(config: TextConfig, index: int) -> tuple[Part, ...]:
    """Zamba2's: the first of the layers that share it holds it, each has an adapter and a projection of its own.

    Source: vllm/model_executor/models/zamba2.py.
    """
    hidden, width, rank = config.hidden_size, config.attention_hidden_size or 0, config.adapter_rank or 0
    size = feed_forward_size(config)
    places = [at for at, word in enumerate(config.layer_types or ()) if word == "hybrid"]
    adapter = rank * (hidden + 2 * size)
    if config.use_shared_attention_adapter:
        adapter += 6 * rank * width
    parts = [Part("attention", hidden * hidden, ways=WHOLE), Part("attention", adapter)]
    if index in places[: config.num_mem_blocks]:
        parts.append(Part("attention", 3 * width * width + width * hidden + 3 * hidden * size))
    return tuple(parts)


def per_layer(config: TextConfig) -> tuple[Part, ...]:
    """The weights for a layer's own embedding in Gemma 3n and 4, and Gemma 3n's low-rank residual (LAuReL)."""
    hidden, parts = config.hidden_size, []
    if config.hidden_size_per_layer_input:
        parts.append(Part("norm", 2 * hidden * config.hidden_size_per_layer_input, ways=WHOLE))
    if config.laurel_rank:
        parts.append(Part("attention", 2 * hidden * config.laurel_rank))
    return tuple(parts)


def layer_embeddings(config: TextConfig) -> tuple[Part, ...]:
    """Gemma 3n's and 4's embeddings of all layers, and what Gemma 3n's several inputs are made with
    (vllm/model_executor/models/gemma3n.py, gemma4.py).
    """
    width = config.num_hidden_layers * config.hidden_size_per_layer_input
    vocabulary = config.vocab_size_per_layer_input or config.vocab_size
    inputs = 2 * max(config.altup_num_inputs - 1, 0) * config.hidden_size**2
    return (Part("embedding", width * (vocabulary + config.hidden_size) + inputs),) if width else ()


def encoder(config: TextConfig) -> tuple[Part, ...]:
    """Whisper's (vllm/model_executor/models/whisper.py): two convolutions, then layers of attention to all and a
    feed-forward layer.
    """
    hidden, size = config.hidden_size, config.encoder_ffn_dim or 0
    return (
        Part("norm", 3 * hidden * (hidden + (config.num_mel_bins or 0)), ways=WHOLE),
        Part("attention", config.encoder_layers * 4 * hidden * hidden),
        Part("mlp", config.encoder_layers * 2 * hidden * size),
    )


def gated_delta_net(config: TextConfig) -> tuple[Part, ...]:
    """Qwen3-Next's linear attention (vllm, vllm/model_executor/models/qwen3_next.py, Qwen3NextGatedDeltaNet)."""
    keys = (config.linear_num_key_heads or 0) * (config.linear_key_head_dim or 0)
    values = (config.linear_num_value_heads or 0) * (config.linear_value_head_dim or 0)
    project = config.hidden_size * (2 * keys + 2 * values + 2 * (config.linear_num_value_heads or 0))
    return (Part("attention", project + config.conv_kernel * (2 * keys + values) + values * config.hidden_size),)


def mamba_inner(config: TextConfig) -> int:
    """Width of a state space layer."""
    if config.mamba_inner_size:
        return config.mamba_inner_size
    if config.model_type in STATE_SPACE_ONLY and config.intermediate_size:
        return config.intermediate_size
    if config.mamba_heads and config.mamba_head_dim:
        return config.mamba_heads * config.mamba_head_dim
    return int(config.mamba_expand * config.hidden_size)


def mamba_heads(config: TextConfig) -> int | None:
    """Heads of a Mamba-2 layer; None for a Mamba-1 layer, which has none."""
    if config.mamba_heads:
        return config.mamba_heads
    return mamba_inner(config) // config.mamba_head_dim if config.mamba_head_dim else None


def mamba(config: TextConfig) -> tuple[Part, ...]:
    """A state space layer, Mamba-2 if the config has heads, else Mamba-1 (vllm, layers/mamba/mamba_mixer*.py)."""
    hidden, inner, state = config.hidden_size, mamba_inner(config), config.mamba_state_size or 16
    heads = mamba_heads(config)
    if heads:
        groups = config.mamba_groups or 1
        grouped = 2 * groups * state * (hidden + config.conv_kernel)
        own = hidden * (2 * inner + heads) + inner * (config.conv_kernel + hidden)
        return (Part("attention", own), Part("attention", grouped, ways=groups))
    rank = config.time_step_rank or -(-hidden // 16)
    own = inner * (rank + 2 * state) + rank * inner + inner * (state + config.conv_kernel)
    return (Part("attention", hidden * 2 * inner + own + inner * hidden),)


def short_convolution(config: TextConfig) -> tuple[Part, ...]:
    """LFM2's mixing of a few tokens (vllm/model_executor/layers/mamba/short_conv.py)."""
    return (Part("attention", config.hidden_size * (4 * config.hidden_size + (config.conv_window or 0))),)


def dense(config: TextConfig, size: int) -> tuple[Part, ...]:
    """A feed-forward layer of that width."""
    matrices = 2 if config.model_type in WITHOUT_GATE else 3
    return (Part("mlp", matrices * config.hidden_size * size),)


def expert_size(config: TextConfig) -> int:
    """Width of one expert."""
    return config.moe_intermediate_size or feed_forward_size(config)


def shared_size(config: TextConfig) -> int:
    """Width of the shared experts, which every token passes; 0 where there are none."""
    if config.shared_expert_intermediate_size is not None:
        each = config.shared_expert_intermediate_size
        return each * (config.num_shared_experts or 0) if config.model_type in NEMOTRON_H else each
    if config.model_type in ("llama4_text", "hunyuan_v1_moe"):
        return feed_forward_size(config)
    return (config.num_shared_experts or 0) * expert_size(config)


def experts(config: TextConfig) -> tuple[Part, ...]:
    """A mixture of experts: its router is on every GPU, and so is the way into a narrower space where they have one
    (vllm/model_executor/models/nemotron_h.py, NemotronHMoE).
    """
    hidden, matrices = config.hidden_size, 2 if config.model_type in WITHOUT_GATE else 3
    for_each_width = config.num_experts * matrices * (config.moe_latent_size or hidden)
    is_mxfp4 = config.quantization is not None and config.quantization.method == "mxfp4"
    parts = [
        Part("experts", for_each_width * expert_size(config), grain=for_each_width * MXFP4_BLOCK if is_mxfp4 else 1),
        Part("router", config.num_experts * hidden, ways=WHOLE),
    ]
    if shared_size(config):
        parts.append(Part("shared", matrices * hidden * shared_size(config)))
    if config.moe_latent_size:
        parts.append(Part("latent", 2 * hidden * config.moe_latent_size, ways=WHOLE))
    return tuple(parts)
