"""A model's config.json as one set of names, checked: families call the same thing n_embd, d_model or hidden_size.

The names are those that vLLM itself tries (vllm 0.32 and 0.33, vllm/transformers_utils/model_arch_config_convertor.py)
and those of transformers' configuration classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sized
from typing import Annotated, Any

from pydantic import AliasPath, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from vllmray.config.explain import OWN, words_of
from vllmray.errors import ConfigError
from vllmray.model.sections import (
    Block,
    Count,
    Large,
    LayerConfig,
    Layers,
    LinearAttention,
    Quantization,
    Small,
    listed_layers,
    names,
    text_section,
    tower_heads,
    tower_outputs,
)

STATE_SPACE_ONLY = {"mamba", "mamba2", "falcon_mamba"}
"""Families without attention."""


class TextConfig(BaseModel):
    """The language model's shape. Counts are of things, sizes of elements; None where the file has no value."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    architecture: str = ""
    model_type: str = ""
    dtype: str | None = Field(None, validation_alias=names("dtype", "torch_dtype"))
    has_other_parts: bool = False
    """A vision or audio tower in addition to the language model."""
    tower_heads: Small | None = None
    """Attention heads of the vision tower."""
    tower_outputs: Small | None = None  # what an audio tower classifies into

    num_hidden_layers: Layers = Field(
        validation_alias=names("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers")
    )
    hidden_size: Small = Field(validation_alias=names("hidden_size", "n_embd", "d_model", "dim"))
    vocab_size: Large = Field(validation_alias=names("vocab_size", "padded_vocab_size"))
    num_attention_heads: Count | None = Field(
        None,
        validation_alias=names("num_attention_heads", "n_head", "n_heads", "decoder_attention_heads"),
        validate_default=True,
    )
    num_key_value_heads: Count | None = Field(
        None,
        validation_alias=names(
            AliasPath("attn_config", "kv_n_heads"),  # DBRX: its class says num_key_value_heads 1 besides
            "n_head_kv",
            "num_kv_heads",
            "num_key_value_heads",
            "multi_query_group_num",
            "num_attention_groups",
        ),
    )
    head_dim: Count | None = Field(
        None, validation_alias=names("head_dim", "hidden_size_per_head", "attention_head_dim")
    )
    global_head_dim: Small | None = None
    num_global_key_value_heads: Small | None = None
    intermediate_size: Large | None = Field(
        None,
        validation_alias=names(
            "intermediate_size",
            "ffn_dim",
            "decoder_ffn_dim",
            "n_inner",
            "ffn_hidden_size",
            "block_ff_dim",
            AliasPath("ffn_config", "ffn_hidden_size"),
        ),
    )
    block_auto_adjust_ff_dim: bool = False
    block_multiple_of: Small = 256
    expansion_ratio: Annotated[float, Field(gt=0, le=1000)] | None = None
    tie_word_embeddings: bool | None = None
    max_position_embeddings: Annotated[int, Field(ge=1)] | None = Field(
        None, validation_alias=names("max_position_embeddings", "n_positions", "n_ctx")
    )
    word_embed_proj_dim: Small | None = None
    multi_query: bool = False
    multi_query_attention: bool | None = None
    new_decoder_architecture: bool = False
    attn_output_gate: bool = Field(default=False, validation_alias=names("attn_output_gate", "use_attn_output_gate"))

    # Mixture of experts
    num_experts: Count = Field(
        0,
        validation_alias=names(
            "num_experts",
            "moe_num_experts",
            "n_routed_experts",
            "num_local_experts",
            AliasPath("ffn_config", "moe_num_experts"),
        ),
    )
    num_experts_per_token: Count = Field(
        0,
        validation_alias=names(
            "num_experts_per_tok",
            "num_experts_per_token",
            "top_k_experts",
            "moe_topk",
            "moe_top_k",
            "moe_k",
            AliasPath("ffn_config", "moe_top_k"),
        ),
    )
    moe_intermediate_size: Large | None = Field(
        None, validation_alias=names("moe_intermediate_size", "expert_intermediate_size", "expert_hidden_dim")
    )
    shared_expert_intermediate_size: Count | None = Field(
        None,
        validation_alias=names(
            "shared_expert_intermediate_size", "shared_intermediate_size", "moe_shared_expert_intermediate_size"
        ),
    )
    num_shared_experts: Count | None = Field(
        None, validation_alias=names("n_shared_experts", "num_shared_experts", "moe_num_shared_experts")
    )
    intermediate_size_mlp: Large | None = None
    moe_latent_size: Small | None = None
    """Nemotron 3: the width of what experts read and write."""
    expert_dtype: str | None = None
    mlp_layer_types: tuple[str, ...] | None = None
    first_k_dense_replace: Count | None = Field(
        None, validation_alias=names("first_k_dense_replace", "moe_layer_start_index", "num_dense_layers")
    )
    moe_layer_freq: tuple[int, ...] | int | None = Field(
        None,
        validation_alias=names(
            "moe_layer_freq", "decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_interval"
        ),
    )
    mlp_only_layers: tuple[int, ...] | None = None
    moe_layers: tuple[int, ...] | None = None
    expert_layer_period: Small | None = None
    expert_layer_offset: Count = 0

    # Multi-head latent attention
    kv_lora_rank: Small | None = None
    q_lora_rank: Count | None = None
    qk_rope_head_dim: Count | None = None
    qk_nope_head_dim: Count | None = None
    v_head_dim: Count | None = None
    index_head_dim: Small | None = None
    index_n_heads: Small | None = None
    indexer_types: tuple[str, ...] | None = None
    index_topk_freq: Small = 1
    index_skip_topk_offset: Count = 2
    index_topk_pattern: str | None = None
    gated_mla: bool = False
    gating_type: str = ""

    # DeepSeek V4
    compress_ratios: tuple[int, ...] | None = None
    o_groups: Small | None = None
    o_lora_rank: Small | None = None

    # MiMo V2: layers with a window have heads of their own
    hybrid_layer_pattern: tuple[int, ...] | None = None
    swa_num_attention_heads: Small | None = None
    swa_num_key_value_heads: Small | None = None
    swa_head_dim: Small | None = None
    swa_v_head_dim: Small | None = None

    # Gemma 3n and 4: an embedding for each layer, and last layers that take keys and values of one before them
    hidden_size_per_layer_input: Count = 0
    vocab_size_per_layer_input: Large | None = None
    num_kv_shared_layers: Count = 0
    use_double_wide_mlp: bool = False
    laurel_rank: Small | None = None
    altup_num_inputs: Count = 0
    per_layer_config: Mapping[str, LayerConfig] | None = None
    num_attention_heads_per_layer: tuple[Small, ...] | None = None

    # Nemotron NAS
    block_configs: tuple[Block, ...] | None = None

    # Zamba2: attention that layers share, each with an adapter of its own
    attention_hidden_size: Small | None = None
    num_mem_blocks: Small = 1
    adapter_rank: Small | None = None
    use_shared_attention_adapter: bool = False

    # Whisper
    encoder_layers: Count = 0
    encoder_attention_heads: Small | None = None
    encoder_ffn_dim: Large | None = None
    max_source_positions: Large | None = None
    num_mel_bins: Small | None = None

    # Layers that are not all alike
    layer_types: tuple[str, ...] | None = Field(None, validation_alias=names("layer_types", "layers_block_type"))
    hybrid_override_pattern: str | None = None
    sliding_window: Annotated[int, Field(ge=0)] | None = None
    use_sliding_window: bool | None = None
    max_window_layers: Count | None = None
    sliding_window_pattern: int | str | None = Field(
        None, validation_alias=names("sliding_window_pattern", "_sliding_window_pattern")
    )
    full_attention_interval: Small | None = None
    attn_layer_period: Small | None = None
    attn_layer_offset: Count = 0
    attn_layer_indices: tuple[int, ...] | None = Field(
        None, validation_alias=names("attn_layer_indices", "full_attn_idxs")
    )

    # Linear attention (gated delta net) and state space layers
    linear_attn_config: LinearAttention | None = None
    linear_num_heads: Small | None = None
    linear_head_dim: Small | None = None
    linear_num_key_heads: Small | None = None
    linear_num_value_heads: Small | None = None
    linear_key_head_dim: Small | None = None
    linear_value_head_dim: Small | None = None
    conv_kernel: Small = Field(
        4,
        validation_alias=names("linear_conv_kernel_dim", "conv_kernel", "mamba_d_conv", "d_conv", "linear_conv_kernel"),
    )
    conv_window: Small | None = Field(None, validation_alias=names("conv_L_cache"))
    mamba_heads: Small | None = Field(
        None, validation_alias=names("mamba_num_heads", "mamba_n_heads", "n_mamba_heads", "num_heads")
    )
    mamba_head_dim: Small | None = Field(
        None, validation_alias=names("mamba_head_dim", "mamba_d_head", "mamba_headdim")
    )
    mamba_groups: Small | None = Field(None, validation_alias=names("mamba_n_groups", "n_groups", "mamba_ngroups"))
    mamba_state_size: Small | None = Field(
        None, validation_alias=names("mamba_d_state", "ssm_state_size", "state_size")
    )
    mamba_inner_size: Small | None = Field(None, validation_alias=names("mamba_d_ssm", "d_inner"))
    mamba_expand: Annotated[float, Field(gt=0, le=1000)] = Field(2, validation_alias=names("mamba_expand", "expand"))
    time_step_rank: Small | None = Field(None, validation_alias=names("mamba_dt_rank", "time_step_rank"))
    ssm_dtype: str | None = Field(None, validation_alias=names("mamba_ssm_dtype", "mamba_ssm_cache_dtype"))

    quantization: Quantization | None = None

    @field_validator(
        *("layer_types", "hybrid_override_pattern", "mlp_layer_types", "indexer_types", "index_topk_pattern"),
        *("compress_ratios", "hybrid_layer_pattern", "block_configs", "num_attention_heads_per_layer"),
    )
    @classmethod
    def _lists_every_layer(cls, value: Sized | None, info: ValidationInfo) -> Sized | None:
        layers = info.data.get("num_hidden_layers", 0)
        if value is not None and len(value) < layers:
            raise PydanticCustomError(OWN, "lists {count} of {layers} layers", {"count": len(value), "layers": layers})
        return value

    def at(self, index: int) -> TextConfig:
        """The configuration for one layer, with its own numbers of heads where it has them."""
        changes: dict[str, int] = {}
        if self.num_attention_heads_per_layer is not None:
            changes["num_attention_heads"] = self.num_attention_heads_per_layer[index]
        own = (self.per_layer_config or {}).get(f"{index:02}") or (self.per_layer_config or {}).get(str(index))
        if own is not None:
            changes |= {name: value for name, value in own if value is not None}
        return self.model_copy(update=changes) if changes else self

    def borrows(self, index: int) -> bool:
        """Whether it uses keys and values of an earlier layer (vllm/model_executor/models/gemma4.py, gemma3n.py)."""
        return 0 < self.num_hidden_layers - self.num_kv_shared_layers <= index

    @property
    def delta_attention(self) -> LinearAttention | None:
        """Kimi's delta attention, given as an object or by single keys."""
        if self.linear_attn_config or not self.linear_num_heads or not self.linear_head_dim:
            return self.linear_attn_config
        return LinearAttention(num_heads=self.linear_num_heads, head_dim=self.linear_head_dim)

    @field_validator("num_attention_heads")
    @classmethod
    def _attends(cls, value: int | None, info: ValidationInfo) -> int | None:
        if not value and info.data.get("model_type") not in STATE_SPACE_ONLY:
            raise PydanticCustomError(OWN, "is missing, or 0")
        return value


def read_config(raw: Mapping[str, Any], model: str) -> TextConfig:
    """The validated configuration of the language model.

    Raises:
        ConfigError: lists each field that is missing or invalid.
    """
    section = text_section(raw)
    quantization = next((q for q in _quantization(raw, section) if isinstance(q, Mapping)), None)
    architectures = raw.get("architectures") or section.get("architectures")
    values = dict(section) | {
        "architecture": architectures[0] if isinstance(architectures, list) and architectures else "",
        "has_other_parts": any(name in raw for name in ("vision_config", "audio_config", "vit_config")),
        "tower_heads": tower_heads(raw),
        "tower_outputs": tower_outputs(raw),
        "quantization": quantization,
        "model_type": section.get("model_type") or raw.get("model_type") or "",
    }
    if section is not raw and isinstance(raw.get("tie_word_embeddings"), bool):
        values["tie_word_embeddings"] = raw["tie_word_embeddings"]  # vllm/config/vllm.py, with_hf_config
    for name in ("dtype", "torch_dtype"):
        values.setdefault(name, raw.get(name))
    if values.get("num_hidden_layers") is None:
        values["num_hidden_layers"] = listed_layers(section)
    try:
        return TextConfig.model_validate({name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        raise ConfigError(
            f"config.json of {model} is invalid",
            details="\n".join(_lines(error)),
            hint="Is it a language model that vLLM serves, and is the file complete? `--no-model-check` skips this "
            "check.",
        ) from None


def _quantization(raw: Mapping[str, Any], section: Mapping[str, Any]) -> Iterator[object]:
    for place in (raw, section):
        for name in ("quantization_config", "compression_config"):
            yield place.get(name)


def _lines(error: ValidationError) -> list[str]:
    lines = []
    for detail in error.errors(include_url=False, include_input=False):
        where = ".".join(str(part) for part in detail["loc"])
        lines += [f"{where}: {what}" for what, _ in words_of(detail)]
    return lines
