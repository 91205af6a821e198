"""Models without weights: a config.json and a tokenizer, for vLLM's --load-format dummy, which makes the weights up."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMON: dict[str, Any] = {
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-05,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "bos_token_id": 0,
    "eos_token_id": 1,
    "max_position_embeddings": 131072,
}


@dataclass(frozen=True, slots=True)
class Shape:
    """A model's config.json."""

    name: str
    config: dict[str, Any]

    def with_layers(self, layers: int) -> Shape:
        return Shape(self.name, {**self.config, "num_hidden_layers": layers})

    @property
    def layers(self) -> int:
        return int(self.config["num_hidden_layers"])


def _llama(name: str, hidden: int, width: int, layers: int, heads: int) -> Shape:
    own = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": hidden,
        "intermediate_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "rope_theta": 500000.0,
    }
    return Shape(name, COMMON | own)


# https://huggingface.co/meta-llama: config.json of Llama-3.1-8B and -70B, less what dummy weights have no use for.
LLAMA_8B = _llama("llama-3.1-8b", 4096, 14336, 32, 32)
LLAMA_70B = _llama("llama-3.1-70b", 8192, 28672, 80, 64)
# Mixtral-8x7B: eight experts, two a token.
MIXTURE = Shape(
    "mixtral-8x7b",
    COMMON
    | {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "rope_theta": 1000000.0,
        "max_position_embeddings": 32768,
        "sliding_window": None,
    },
)
# DeepSeek-V2-Lite: latent attention (MLA), which keeps 576 numbers a token and layer.
LATENT = Shape(
    "deepseek-v2-lite",
    COMMON
    | {
        "architectures": ["DeepseekV2ForCausalLM"],
        "model_type": "deepseek_v2",
        "vocab_size": 102400,
        "hidden_size": 2048,
        "intermediate_size": 10944,
        "moe_intermediate_size": 1408,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "n_routed_experts": 64,
        "n_shared_experts": 2,
        "num_experts_per_tok": 6,
        "moe_layer_freq": 1,
        "first_k_dense_replace": 1,
        "n_group": 1,
        "topk_group": 1,
        "topk_method": "greedy",
        "scoring_func": "softmax",
        "norm_topk_prob": False,
        "routed_scaling_factor": 1.0,
        "q_lora_rank": None,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "rope_theta": 10000,
        "max_position_embeddings": 32768,
    },
)
# For a rehearsal on CPUs, where a minute must do.
TINY = Shape(
    "tiny",
    COMMON
    | {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 2048,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 8192,
    },
)


def write(shape: Shape, folder: Path) -> Path:
    """The model's folder below that one."""
    made = folder / f"{shape.name}-{shape.layers}"
    made.mkdir(parents=True, exist_ok=True)
    (made / "config.json").write_text(json.dumps(shape.config, indent=1))
    (made / "tokenizer.json").write_text(json.dumps(_tokenizer(shape.config["vocab_size"])))
    words = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<begin>", "eos_token": "<end>"}
    (made / "tokenizer_config.json").write_text(json.dumps(words))
    return made


def _tokenizer(size: int) -> dict[str, Any]:
    """One token a byte, and words that no text has for the rest, so that every id of the model can be decoded."""
    words = ["<begin>", "<end>", *_bytes_as_letters()]
    words += [f"w{number}" for number in range(len(words), size)]
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": number, "content": word, "special": True}
            | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            for number, word in enumerate(words[:2])
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {word: number for number, word in enumerate(words)},
            "merges": [],
        },
    }


def _bytes_as_letters() -> list[str]:
    """The letter that stands for each byte (tokenizers, pre_tokenizers/byte_level.rs, bytes_char)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]
