"""Which keys of a config.json are understood, and which make a figure unknown.

A key that describes layers, heads, experts or a cache and is not understood makes the figure unknown that may depend on
it: what is not known is never read as "all layers alike". A key is understood when config.py reads it, here when only
some families have it, or when it is known to change no size.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import AliasChoices

from vllmray.model.config import TextConfig
from vllmray.model.limits import KEYS

EXPERTS = re.compile(r"expert|moe|mlp|ffn|feed_forward|intermediate|router|adapter|vocab|embed|ngram|proj")
"""Keys of parts that only have weights: experts, feed-forward layers, embeddings."""
LAYERS = re.compile(
    r"layer|block|stack|depth|loop|head|attn|attention|cache|window|swa|sliding|local|global|chunk|pattern|interval"
    r"|period|every|freq|hybrid|kv|q_|qk|linear|mamba|ssm|conv|state|recurr|rank|latent|compress|index|sparse|share"
    r"|ratio|group|channel|width|dim|size|mixer|memory|meta_token|delta|retention|lightning|rnn|lstm|rwkv|hyena|full"
    r"|schedule|yoco|gating|gated|_gate\b"
)
"""Keys of layers that may have a cache for a sequence; they have weights too."""
# Keys that describe no size, by the end of the name, its beginning or the whole of it (transformers' and vLLM's
# configuration classes).
HARMLESS = re.compile(
    r".*(_token_id|_token_ids|_token_index|_bias|_dropout|_drop|_pdrop|_dropout_prob|_prob|_eps|_epsilon|_std"
    r"|_theta|_coef|_coeff|_range|_scale|_scaling|(scaling|scale|alpha|beta)_factor|_act|_activation|_act_fn"
    r"|_activation_func|_fn|_func|_softcapping|_softcap|_scheme|_implementation|_pos_enc|_norm|_norms|_layernorm"
    r"|_fp32|_in_float32|_init)"
    r"|(\w+_)?(attention|embedding|residual|logits|key|in|out|mlp|ssm|lm_head|mup_width)_multipliers?"
    r"|(rope|rotary|yarn|initializer|mtp|num_nextn|time_step|dpo|training|pretraining|tokenizer|chunk_size_feed"
    r"|return|scale_attn|no_rope|loss|linear_dt|linear_a_log_|layernorm|layer_norm|use_mamba_kernels)\w*"
    r"|output_(attentions|hidden_states|router_logits|scores|logits)|router_dtype|router_jitter_noise"
    r"|norm_before_gate|need_fp32_gate"
    r"|_attn_implementation_autoset|_flash_attn_2_enabled|(use_)?(flash|fused)_(attention|attn)(_2)?|use_logn_attn|clip_qkv"
    r"|use_cache|use_qk_norm|qk_norm|cache_implementation|topk_group|n_group|num_expert_group|use_grouped_topk"
    r"|type_vocab_size|query_pre_attn_scalar|index_topk|index_topk_freq|chunk_size|mamba_chunk_size"
    r"|qk_head_dim|do_layer_norm_before|moe_renormalize|moe_norm_min|norm_topk_prob|is_decoder|is_encoder_decoder"
    r"|add_cross_attention|moe_shared_expert_overlap|shared_expert_combination_strategy|attn_temperature_tuning"
    r"|mamba_norm_before_gate|mamba_rms_norm|parallel_attn|sparse_pred_ignore_index|sparse_prediction|floor_scale"
    r"|indexer_rope_interleave|torchscript|ep_size|head_dtype|scale_depth|dim_model_base|mamba_hidden_act"
    r"|linear_allow_neg_eigval|linear_lower_bound|rms_norm\w*|hidden_activation|alibi|norm_head|max_sequence_length"
    r"|residual_\w+|rescale_prenorm_residual|num_logits_to_keep|position_embedding_type|expert_selection_fn"
    r"|original_max_position_embeddings|experts_per_token|id2label|label2id|pruned_heads|num_beam_groups|seq_aux"
    r"|qk_norm_type|summary_\w+|classifier_proj_size|median_filter_width|enable_moe_fp32_combine|projection_(dim|size)"
    r"|hidden_act|use_parallel_residual|num_beams|num_labels|task_specific_params|auto_map|architectures"
    r"|use_linear_bias|add_\w+_sink_bias|scale_emb|mup_\w+|first_k_dense_layers_no_op"
)
GEMMA = frozenset({"gemma3n_text", "gemma4_text", "gemma4_unified_text", "diffusion_gemma_text", "gemma3n", "gemma4"})
MIMO = frozenset({"mimo_v2_flash", "mimo_v2"})
ZAMBA = frozenset({"zamba2"})
ERNIE = frozenset({"ernie4_5_moe"})
WHISPER = frozenset({"whisper"})
FAMILIES: Mapping[str, frozenset[str]] = {
    "compress_ratios": frozenset({"deepseek_v4"}),
    "o_groups": frozenset({"deepseek_v4"}),
    "o_lora_rank": frozenset({"deepseek_v4"}),
    "expert_dtype": frozenset({"deepseek_v4"}),
    "num_hash_layers": frozenset({"deepseek_v4"}),
    "hc_mult": frozenset({"deepseek_v4", "hy_v4"}),
    "hc_sinkhorn_iters": frozenset({"deepseek_v4"}),
    "gated_mla": frozenset({"hy_v4"}),
    "gating_type": frozenset({"hy_v4"}),
    "indexer_types": frozenset({"hy_v4", "glm_moe_dsa", "deepseek_v32"}),
    "hybrid_layer_pattern": MIMO,
    "swa_num_attention_heads": MIMO,
    "swa_num_key_value_heads": MIMO,
    "swa_head_dim": MIMO,
    "swa_v_head_dim": MIMO,
    "sliding_window_size": MIMO,
    "attention_chunk_size": MIMO | {"llama4_text"},
    "block_configs": frozenset({"nemotron-nas"}),
    "linear_attn_config": frozenset({"kimi_linear"}),
    "linear_num_heads": frozenset({"kimi_linear"}),
    "linear_head_dim": frozenset({"kimi_linear"}),
    "mla_use_nope": frozenset({"kimi_linear"}),
    "moe_latent_size": frozenset({"nemotron_h", "nemotron_h_omni"}),
    "attention_hidden_size": ZAMBA,
    "num_mem_blocks": ZAMBA,
    "adapter_rank": ZAMBA,
    "kv_channels": ZAMBA | {"qwen", "chatglm"},
    "num_query_groups": ZAMBA,
    "hybrid_layer_ids": ZAMBA,
    **dict.fromkeys(
        ("image_size", "patch_size", "vision_batch_size", "query_num"), frozenset({"minicpmv", "minicpmo"})
    ),
    **dict.fromkeys(("embd_layer", "img_processor"), frozenset({"phi3_v"})),
    **dict.fromkeys(("mm_hidden_size", "mm_projector_type"), frozenset({"phi4-siglip"})),
    **dict.fromkeys(("window_size", "interleaved_sliding_window"), frozenset({"plamo3"})),
    "additional_vocab_size": frozenset({"molmo", "molmo2", "molmo2_text"}),
    "embedding_size": frozenset({"molmo"}),
    "normalize_tok_embeddings": frozenset({"muse_glimmer_text"}),
    "pack_qkv": frozenset({"new"}),
    "expert_hidden_dim": frozenset({"hy_v3"}),
    "multi_query_attention": frozenset({"chatglm"}),
    "encoder_layers": WHISPER,
    "encoder_attention_heads": WHISPER,
    "encoder_ffn_dim": WHISPER,
    "max_source_positions": WHISPER,
    **dict.fromkeys(("hidden_size_per_layer_input", "vocab_size_per_layer_input", "num_kv_shared_layers"), GEMMA),
    **dict.fromkeys(("laurel_rank", "altup_num_inputs", "altup_active_idx", "activation_sparsity_pattern"), GEMMA),
    **dict.fromkeys(("per_layer_config", "use_double_wide_mlp", "attention_k_eq_v"), GEMMA),
    **dict.fromkeys(("num_attention_heads_per_layer", "gating"), frozenset({"laguna"})),
    "num_dense_layers": frozenset({"afmoe", "lfm2_moe"}),
    "global_attn_every_n_layers": frozenset({"afmoe", "modernbert"}),
    "local_attention": frozenset({"modernbert"}),
    "prefix_dense_sliding_window_pattern": frozenset({"cohere2_moe"}),
    "block_ffn_dim_multiplier": frozenset({"lfm2"}),
    **{name: frozenset({"lfm2", "lfm2_moe"}) for name in ("block_dim", "block_use_swiglu", "conv_dim")},
    **dict.fromkeys(("moe_layer_end_index", "moe_capacity", "moe_gate", "moe_use_aux_free"), ERNIE),
    **{name: frozenset({"cohere2"}) for name in ("use_parallel_block", "use_embedding_sharing")},
}
"""Keys that are understood in some families only."""
SCALARS = frozenset(
    {
        *("num_attention_heads", "num_key_value_heads", "num_kv_heads", "n_head", "head_dim", "intermediate_size"),
        *("ffn_dim", "num_experts", "num_local_experts", "n_routed_experts", "sliding_window", "hidden_size"),
    }
)
"""Keys that are read as one number. A list of different ones means that layers differ."""
FEED_FORWARD_WORDS = frozenset({"dense", "sparse", "moe", "hash_moe"})
"""Of mlp_layer_types; the last is DeepSeek V4's: experts that a table chooses."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """Reasons, each the name of a key or a word and what is not known of it; empty where everything is understood."""

    cache: tuple[str, ...] = ()
    """Why the KV cache of a sequence is not known."""
    weights: tuple[str, ...] = ()
    """Why the weights do not follow from the shapes."""


def _read() -> Iterator[str]:
    """The keys that config.py and limits.py read."""
    yield from KEYS
    for name, field in TextConfig.model_fields.items():
        alias = field.validation_alias
        if not isinstance(alias, AliasChoices):
            yield name
            continue
        for choice in alias.choices:
            yield choice if isinstance(choice, str) else str(choice.path[0])


READ = frozenset(_read())


def unknown_keys(section: Mapping[str, Any], config: TextConfig) -> Unknown:
    """The keys of a configuration about layers, heads, experts and caches that are not understood.

    Args:
        section: the language model's, as text_section gives it.
    """
    cache, weights = [], []
    if config.quantization is not None and not config.quantization.is_understood:
        weights.append(f"quantization {config.quantization.method or 'without a method'} is not understood")
    for name, value in section.items():
        if not value or _is_understood(name, value, config):
            continue
        reason = f"{name} is not understood"
        if EXPERTS.search(name):
            weights.append(reason)
        elif LAYERS.search(name) or _lists_layers(value, config):
            cache.append(reason)
            weights.append(reason)
    return Unknown(tuple(cache), tuple(weights))


def _is_understood(name: str, value: object, config: TextConfig) -> bool:
    if name in FAMILIES:
        return config.model_type in FAMILIES[name] or _changes_nothing(name, value, config)
    if name in SCALARS and isinstance(value, list):
        return len({str(each) for each in value}) == 1
    if name == "mlp_layer_types" and isinstance(value, list):
        return set(map(str, value)) <= FEED_FORWARD_WORDS
    if name in READ or HARMLESS.fullmatch(name):
        return True
    return _changes_nothing(name, value, config)


def _changes_nothing(name: str, value: object, config: TextConfig) -> bool:
    """Whether the key has the value that is the default without it."""
    match name:
        case "use_bidirectional_attention":
            return value == "vision" or config.model_type == "gemma"  # PaliGemma: for the image alone
        case "sliding_window_size":
            return value == config.sliding_window
        case "attn_type_list":  # 1 is attention to all tokens, 0 MiniMax's lightning attention
            return isinstance(value, list) and set(map(str, value)) == {"1"}
        case "mlp_type":
            return value == "default"
        case "order_of_interleaved_layers":
            return value == "local_attn_first" and config.model_type == "cohere2"
    return False


def _lists_layers(value: object, config: TextConfig) -> bool:
    """Whether the value has an entry for each layer, whatever the key is called."""
    return isinstance(value, list | dict) and len(value) >= max(config.num_hidden_layers, 2)
