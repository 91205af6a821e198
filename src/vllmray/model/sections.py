"""Sections of a config.json that are objects of their own, and the bounds of its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AliasChoices, AliasPath, BaseModel, BeforeValidator, ConfigDict, Field

# Where the language model of a multimodal one is described (transformers, PreTrainedConfig.get_text_config; vllm,
# vllm/transformers_utils/config.py).
TEXT_SECTIONS = ("text_config", "llm_config", "language_config", "thinker_config")

# What transformers' classes fill in where published files leave it out (transformers 5.19, Gemma3TextConfig).
LEFT_OUT: Mapping[str, Mapping[str, Any]] = {
    "gemma3_text": {
        "vocab_size": 262208,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 131072,
        "sliding_window": 4096,
    },
    "hy_v4": {"gated_mla": True, "gating_type": "elementwise"},  # vllm/transformers_utils/configs/hy_v4.py
}


def text_section(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of config.json that describes the language model, which is all of it unless there are others."""
    for name in TEXT_SECTIONS:
        section = raw.get(name)
        if isinstance(section, Mapping):
            return text_section(section)
    return {**LEFT_OUT.get(str(raw.get("model_type")), {}), **raw}


def listed_layers(section: Mapping[str, Any]) -> int | None:
    """The number of layers, where a list gives it (transformers, NemotronHConfig.num_hidden_layers)."""
    lists = (section.get(name) for name in ("layers_block_type", "layer_types", "hybrid_override_pattern"))
    return next((len(each) for each in lists if isinstance(each, list | str) and each), None)


def tower_heads(raw: Mapping[str, Any]) -> object:
    """Attention heads of the vision tower; None without a tower or without their number."""
    tower = raw.get("vision_config")
    if not isinstance(tower, Mapping):
        return None
    return next((tower[name] for name in ("num_attention_heads", "num_heads") if tower.get(name)), None)


def tower_outputs(raw: Mapping[str, Any]) -> object:
    """What Granite Speech's encoder classifies into (vllm/model_executor/models/granite_speech.py); transformers' class
    has 42 unless said.
    """
    tower = raw.get("encoder_config")
    if not isinstance(tower, Mapping) or not str(raw.get("model_type")).startswith("granite_speech"):
        return None
    return tower.get("output_dim", 42)


def _one(value: object) -> object:
    """The largest number, where a family gives one for each layer or kind of expert: memory must suffice for that."""
    if isinstance(value, list | tuple) and value and all(type(each) is int for each in value):
        return max(value)
    return value


def names(*keys: str | AliasPath) -> Any:
    """Aliases: the keys that families use for one thing; the first that is present counts."""
    return AliasChoices(*keys)


# Bounds far beyond any model that exists: what lies outside is a damaged file, and would cost hours of arithmetic.
Small = Annotated[int, BeforeValidator(_one), Field(ge=1, le=100_000, strict=True)]
Large = Annotated[int, BeforeValidator(_one), Field(ge=1, le=100_000_000, strict=True)]
Count = Annotated[int, BeforeValidator(_one), Field(ge=0, le=100_000, strict=True)]
Layers = Annotated[int, Field(ge=1, le=10_000, strict=True)]


ONE_WIDTH = frozenset(
    {
        *("awq", "gptq", "mxfp4", "gpt_oss_mxfp4", "modelopt_fp4", "nvfp4", "NVFP4", "bitsandbytes"),
        *("fp8", "fbgemm_fp8", "FP8"),
    }
)
"""Methods whose weights have a width that memory.py knows, though the file may not say it."""


class Quantization(BaseModel):
    """quantization_config, as far as it decides sizes and what can be divided."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    method: str = Field("", validation_alias=names("quant_method", "quant_algo"))
    algorithm: str = Field("", validation_alias="quant_algo")
    """ModelOpt's, whose quant_method is modelopt for several."""
    bits: Annotated[int, Field(ge=1, le=32)] | None = Field(
        None, validation_alias=names("bits", "w_bit", AliasPath("config_groups", "group_0", "weights", "num_bits"))
    )
    group_size: Annotated[int, Field(ge=-1, le=1_000_000)] | None = Field(
        None,
        validation_alias=names(
            "group_size", "q_group_size", AliasPath("config_groups", "group_0", "weights", "group_size")
        ),
    )
    symmetric: bool | None = Field(
        None, validation_alias=names("symmetric", AliasPath("config_groups", "group_0", "weights", "symmetric"))
    )
    """Without zero points."""
    weight_block_size: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] | None = None
    load_in_4bit: bool | None = None
    not_converted: tuple[str, ...] | None = Field(
        None, validation_alias=names("modules_to_not_convert", "ignored_layers", "ignore", "exclude_modules")
    )
    cache: Any = Field(
        None,
        validation_alias=names(
            AliasPath("quantization", "kv_cache_scheme"),
            "kv_cache_scheme",
            AliasPath("quantization", "kv_cache_quant_algo"),
            "kv_cache_quant_algo",
        ),
    )

    groups: Mapping[str, Any] = Field(default_factory=dict, validation_alias="config_groups")

    @property
    def is_understood(self) -> bool:
        """Whether the bits of a weight follow from it: the method has one width, or it gives one for all groups."""
        if self.method == "modelopt":
            return self.algorithm.upper() in ("", "FP8", "FP8_PER_CHANNEL_PER_TOKEN", "FP8_PB_WO", "NVFP4")
        if self.method in ONE_WIDTH or not self.model_fields_set:
            return True
        weights = [group.get("weights") for group in self.groups.values() if isinstance(group, Mapping)]
        widths = {each.get("num_bits") if isinstance(each, Mapping) else None for each in weights}
        return self.bits is not None and widths <= {self.bits}

    @property
    def cache_dtype(self) -> str:
        """The type of keys and values by default, as --kv-cache-dtype names it.

        Source: vllm 0.32, vllm/utils/torch_utils.py, get_kv_cache_quant_algo_string, for ModelOpt;
        vllm/model_executor/layers/attention/attention.py for compressed-tensors, which takes FP8 alone.
        """
        if self.method == "compressed-tensors":
            return "fp8" if self.cache else "auto"
        if not self.method.startswith("modelopt"):
            return "auto"
        if not isinstance(self.cache, Mapping):
            return {"fp8": "fp8", "nvfp4": "nvfp4"}.get(str(self.cache).lower(), "auto")
        kind = (self.cache.get("type"), self.cache.get("num_bits"))
        if kind == ("float", 8) and self.cache.get("dynamic") is False:
            return "fp8"
        return "nvfp4" if kind == ("float", 4) else "auto"


class LayerConfig(BaseModel):
    """One of per_layer_config (transformers 5.19): what differs in one layer from the others."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    head_dim: Small | None = None
    num_key_value_heads: Small | None = None
    num_attention_heads: Small | None = None


class BlockAttention(BaseModel):
    """Attention of one of block_configs."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    n_heads_in_group: Small | None = None
    """Heads that share a key-value head."""
    no_op: bool = False


class BlockFeedForward(BaseModel):
    """Feed-forward layer of one of block_configs."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    ffn_mult: Annotated[float, Field(gt=0, le=1000)] | None = None
    intermediate_size: Large | None = None
    no_op: bool = False


class Block(BaseModel):
    """A layer found by neural architecture search (vllm/model_executor/models/nemotron_nas.py)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    attention: BlockAttention
    ffn: BlockFeedForward

    def feed_forward_size(self, hidden: int) -> int:
        """Width, as _ffn_mult_to_intermediate_size there has it; 0 without a feed-forward layer."""
        if self.ffn.no_op:
            return 0
        if self.ffn.ffn_mult is None:
            return self.ffn.intermediate_size or 0
        return -(-int(2 * self.ffn.ffn_mult * hidden / 3) // 256) * 256


class LinearAttention(BaseModel):
    """linear_attn_config: Kimi's delta attention, and which layers attend to all tokens, counted from 1."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    num_heads: Small
    head_dim: Small
    short_conv_kernel_size: Small = 4
    full_attn_layers: tuple[int, ...] = ()
