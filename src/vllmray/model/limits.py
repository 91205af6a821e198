"""The longest context that vLLM allows for a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vllmray.model.sections import text_section

# vllm 0.32, vllm/transformers_utils/model_arch_config_convertor.py, derive_max_model_len_and_key; the least counts.
KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "max_target_positions",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)
# Kinds of rotary embedding whose max_position_embeddings is scaled already (vllm/config/model.py,
# _get_and_verify_max_len).
SCALED_ALREADY = ("su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling")


def longest_context(raw: Mapping[str, Any]) -> int | None:
    """Tokens, or None when config.json has no limit: then vLLM accepts any length.

    Source: vllm 0.32, vllm/config/model.py, _get_and_verify_max_len.
    """
    section = text_section(raw)
    lengths = [value for key in KEYS if type(value := section.get(key)) is int and value > 0]
    own = section.get("model_max_length")
    limit = own if type(own) is int and own > 0 else min(lengths, default=None)
    if limit is None:
        return None
    if "gemma3" not in str(raw.get("model_type")):
        for rope in _rope_parameters(section):
            kind = rope.get("rope_type", rope.get("type"))
            factor = rope.get("factor")
            if kind not in SCALED_ALREADY and isinstance(factor, int | float) and 0 < factor < 1e6:
                limit = int(limit * factor)
                break
    return limit


def _rope_parameters(section: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """One set, or one for each kind of layer."""
    for name in ("rope_parameters", "rope_scaling"):
        found = section.get(name)
        if isinstance(found, Mapping):
            nested = [value for value in found.values() if isinstance(value, Mapping)]
            yield from nested or [found]
