"""Formats set by the engine's options: of the KV cache, and of weights quantised on load."""

from __future__ import annotations

from fractions import Fraction

# Bytes of an element of keys and values (vllm 0.32, vllm/config/cache.py, CacheDType). NVFP4 has a scale of 8 bits for
# each 16 elements (vllm/utils/torch_utils.py, nvfp4_kv_cache_full_dim).
CACHE_BYTES = {
    "float16": Fraction(2),
    "bfloat16": Fraction(2),
    **dict.fromkeys(("fp8", "fp8_e4m3", "fp8_e5m2", "fp8_inc"), Fraction(1)),
    **dict.fromkeys(("nvfp4", "nvfp4_4over6"), Fraction(1, 2) + Fraction(1, 16)),
}
# With a scale of 32 bits for the keys and one for the values of each head (vllm/v1/attention/backends/triton_attn.py,
# customize_spec).
SCALED_CACHE_BYTES = {
    "int8_per_token_head": Fraction(1),
    "fp8_per_token_head": Fraction(1),
    "int4_per_token_head": Fraction(1, 2),
}
PLAIN_CACHES = ("auto", "float16", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2", "fp8_inc")
"""Formats that compressed keys and values (MLA) have too; in the others they have layouts of their own."""

EVERY_LAYER = ("attention", "mlp", "experts", "shared")
# Bits of an element with its share of scales, and what is quantised (vllm 0.32, vllm/config/quantization.py,
# _ONLINE_SHORTHANDS; vllm/model_executor/layers/quantization/experts_int8.py). A scale for a tensor or a channel is
# too little to count.
ONLINE: dict[str, tuple[float, tuple[str, ...]]] = {
    "fp8": (8, EVERY_LAYER),
    "fp8_per_tensor": (8, EVERY_LAYER),
    "fp8_per_channel": (8, EVERY_LAYER),
    "fp8_per_block": (8 + 32 / 128**2, EVERY_LAYER),
    "mxfp8": (8 + 8 / 32, EVERY_LAYER),
    "mxfp4": (4 + 8 / 32, EVERY_LAYER),
    "int8_per_channel_weight_only": (8, ("experts",)),
    "experts_int8": (8, ("experts",)),
    "nvfp4_per_token": (4 + 8 / 16, ("experts",)),
    "bitsandbytes": (4.5, EVERY_LAYER),
}


def cache_element(name: str, head_size: int) -> Fraction | None:
    """Bytes of a key or a value in a cache of that format; None when that is not known."""
    if name in SCALED_CACHE_BYTES:
        return SCALED_CACHE_BYTES[name] + Fraction(4, head_size)
    return CACHE_BYTES.get(name)
