"""The memory that a model takes on each GPU: weights, KV cache, and the overhead of vLLM. Bytes throughout.

Weights follow from the shapes (and, where they are known, the bytes of the checkpoint); the KV cache is exact, by
vLLM's own KV-cache specifications. Activations, CUDA graphs and NCCL's buffers are ESTIMATES, from what
vLLM's memory profiling run does and from what four models took on NVIDIA H100 (docs/gpu-acceptance.md).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from vllmray.model.config import TextConfig
from vllmray.model.layers import Layer, Shape
from vllmray.model.parts import WHOLE, Part, dense_size, expert_size, head_dim_of, shared_size
from vllmray.model.sections import Quantization
from vllmray.model.told import ONLINE, PLAIN_CACHES, cache_element

GIB = 1024**3
DTYPE_BYTES = {
    "float32": 4,
    "float64": 8,
    "bfloat16": 2,
    "float16": 2,
    "half": 2,
    "fp8": 1,
    "fp8_e4m3": 1,
    "fp8_e5m2": 1,
}
GRAPHS, GRAPHS_A_LAYER = 0.2 * GIB, 0.017 * GIB
"""Estimate: captured CUDA graphs of vLLM's usual batch sizes. Measured: 0.72 GiB with 32 layers, 1.52 with 80."""
BUFFERS = 0.55 * GIB
"""Estimate: NCCL's buffers and what libraries take after vLLM first reads free memory. Measured: 0.54 to 0.59 GiB."""
RESERVED = 0.5 * GIB
"""CUDA gives a program this much less than nvidia-smi reports for a GPU: 79.18 of an H100's 79.65 GiB."""
LOGIT_BYTES = 7
"""A sequence's logits as they come, gathered, and in 32 bits."""
ROUTED_IN_32_BITS = ("glm4_moe", "minimax_m2", "ernie4_5_moe")
"""Families whose routers are float32 (vllm/model_executor/models/glm4_moe.py, minimax_m2.py, ernie45_moe.py)."""
IN_32_BITS = ("nemotron_h", "nemotron_h_omni", "kimi_linear")
"""Families whose recurrent states are float32 unless config.json says otherwise (vllm/model_executor/models/config.py,
NemotronHForCausalLMConfig; mamba_utils.py, kda_state_dtype)."""
MODULES = {
    "attention": "model.layers.9.self_attn.o_proj",
    "shared": "model.layers.9.mlp.shared_experts.down_proj",
    "mlp": "model.layers.9.mlp.down_proj",
    "experts": "model.layers.9.mlp.experts.9.down_proj",
}
"""A name of each kind, for regular expressions."""
QUANTISED = ("attention", "mlp", "experts", "shared")
# Words of modules_to_not_convert that keep a kind of layer as it is.
LEFT_ALONE = {"attention": ("attn", "attention"), "shared": ("shared",), "mlp": ("mlp",), "experts": ("experts",)}


@dataclass(frozen=True, slots=True)
class Engine:
    """The engine's options that memory depends on; None leaves the choice to vLLM."""

    max_model_len: int
    gpu_memory_utilization: float = 0.92
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    kv_cache_dtype: str = "auto"
    dtype: str = "auto"
    kv_cache_memory_bytes: int | None = None
    """For sequences, on each GPU, whatever gpu_memory_utilization says."""
    cpu_offload_bytes: int = 0
    """Of each GPU's weights, in the host's memory."""
    quantization: str | None = None
    """A format of model/told.py that the weights get while they are loaded."""
    enforce_eager: bool = False
    chooses_length: bool = False
    """vLLM takes max_model_len where it fits, and else the longest that does."""

    def batch(self, memory: int) -> Batch:
        """What vLLM takes by itself on a GPU of that memory (vllm 0.33, vllm/engine/arg_utils.py,
        get_batch_defaults: 70 and 160 GiB divide; an A100 of 80 GB counts as smaller there, which is not known here).
        """
        tokens, sequences = (
            (16384, 1024) if memory >= 160 * GIB else (8192, 1024) if memory >= 70 * GIB else (2048, 256)
        )
        return Batch(self.max_num_batched_tokens or tokens, self.max_num_seqs or sequences)


@dataclass(frozen=True, slots=True)
class Batch:
    """The largest batch: tokens and sequences that are computed at once."""

    tokens: int
    sequences: int


@dataclass(frozen=True, slots=True)
class Kept:
    """The KV cache of one sequence on a GPU of a stage."""

    token: tuple[tuple[float, int | None], ...]
    """Bytes a token, of at most so many tokens; together of all layers that have the same window."""
    fixed: int
    """Bytes whatever the length."""

    def bytes_of(self, tokens: int, batch: Batch) -> int:
        """Of a sequence of that length. A window keeps its tokens, and those of the batch that is being computed
        (vllm/v1/kv_cache_interface.py, SlidingWindowSpec.max_memory_usage_bytes).
        """
        return self.fixed + sum(
            int(each * (min(tokens, window - 1 + batch.tokens) if window else tokens)) for each, window in self.token
        )


@dataclass(frozen=True, slots=True)
class StageMemory:
    """The memory of one GPU of a pipeline stage."""

    layers: int
    memory: int
    """Of the GPU, in all."""
    weights: int | None
    """None: not known."""
    overhead: int
    """An estimate: activations, graphs, buffers."""
    room: int | None
    """For sequences; negative when not even the rest fits, None when the weights are not known."""
    kept: Kept | None
    """None: not known."""
    batch: Batch

    def sequences(self, tokens: int) -> int | None:
        """How many of that length fit at once; negative when none ever does, None when that is not known."""
        if self.room is None or self.room < 0:
            return None if self.room is None else -1
        if self.kept is None:
            return None
        each = self.kept.bytes_of(tokens, self.batch)
        return self.room // each if each else self.batch.sequences


def element_bytes(config: TextConfig, engine: Engine) -> int:
    """Of a weight that is not quantised: float32 checkpoints are served as 16 bits (vllm/config/model.py)."""
    name = config.dtype or "bfloat16" if engine.dtype == "auto" else engine.dtype
    size = DTYPE_BYTES.get(name.removeprefix("torch."), 2)
    return 2 if engine.dtype == "auto" else size


def cache_element_bytes(config: TextConfig, engine: Engine) -> Fraction | None:
    """Of a key or a value; None when it is not known."""
    name = cache_dtype(config, engine)
    if name == "auto":
        return Fraction(element_bytes(config, engine))
    if config.kv_lora_rank and name not in PLAIN_CACHES:
        return None
    return cache_element(name, head_dim_of(config))


def cache_dtype(config: TextConfig, engine: Engine) -> str:
    """What --kv-cache-dtype says, or without it the checkpoint."""
    if engine.kv_cache_dtype == "auto" and config.quantization is not None:
        return config.quantization.cache_dtype
    return engine.kv_cache_dtype


def weight_bits(part: Part, config: TextConfig, engine: Engine) -> float:
    """Of one element of a weight, its share of scales and zero points included."""
    own = _bits_of_its_own(part, config)
    if own is not None:
        return own
    usual, quantization = 8.0 * element_bytes(config, engine), config.quantization
    if engine.quantization in ONLINE and quantization is None:
        bits, kinds = ONLINE[engine.quantization]
        return bits if part.kind in kinds else usual
    if quantization is None or part.kind not in QUANTISED or _left_alone(part, quantization):
        return usual
    return _quantised_bits(part, quantization, usual)


def _bits_of_its_own(part: Part, config: TextConfig) -> float | None:
    """Of a part that has a type of its own in this family, whatever the other parts have."""
    if part.kind == "head" or (part.kind == "router" and config.model_type in ROUTED_IN_32_BITS):
        return 32
    if part.kind == "experts" and config.expert_dtype == "fp4":  # DeepSeek V4: a scale of 8 bits for each 32
        return 4 + 8 / 32
    return None


def _quantised_bits(part: Part, quantization: Quantization, usual: float) -> float:
    """Of an element of a weight that the checkpoint has quantised."""
    group = quantization.group_size or 0
    match quantization.method:
        case "awq" | "gptq" | "auto-round" | "compressed-tensors" | "inc" | "quark":
            bits = quantization.bits or (4 if quantization.method in ("awq", "gptq") else 8)
            scales = 16 if quantization.symmetric and quantization.method == "compressed-tensors" else 16 + bits
            return bits + (scales / group if group > 0 else 0)
        case "mxfp4" | "gpt_oss_mxfp4":
            return 4 + 8 / 32 if part.kind == "experts" else usual
        case "modelopt_fp4" | "nvfp4" | "NVFP4":
            return 4 + 8 / 16
        case "modelopt" if quantization.algorithm == "NVFP4":
            return 4 + 8 / 16
        case "bitsandbytes":
            return 4.5 if quantization.load_in_4bit else 8
        case "fp8" | "fbgemm_fp8" | "modelopt" | "FP8":
            block = quantization.weight_block_size
            return 8 + (32 / (block[0] * block[-1]) if block else 0)
    return float(quantization.bits or usual)


def _left_alone(part: Part, quantization: Quantization) -> bool:
    return any(_names(name, part) for name in quantization.not_converted or ())


def _names(name: str, part: Part) -> bool:
    """Whether an entry of modules_to_not_convert or of ignore means all layers of that kind."""
    if name.startswith("re:"):  # vllm/model_executor/layers/quantization/compressed_tensors/utils.py
        try:
            return re.match(name[3:], MODULES[part.kind]) is not None
        except re.error:
            return False
    if ("." in name and "*" not in name) or (part.kind != "shared" and "shared" in name):
        return False
    return any(word in name for word in LEFT_ALONE[part.kind])


def stage_weights(
    shape: Shape,
    layers: Sequence[Layer],
    engine: Engine,
    *,
    tensor_parallel_size: int = 1,
    first: bool,
    last: bool,
) -> int:
    """On each GPU of a stage. The first has the embedding, the last the norm and the head, which is the embedding once
    more where the two are tied (vllm/model_executor/models/llama.py); some families have both on every stage.
    """
    held = [part for layer in layers for part in layer.parts]
    embedding = Part("embedding", shape.embedding, ways=None if shape.shares_embedding else WHOLE)
    held.append(Part("embedding", shape.positions, ways=WHOLE))
    if first or shape.ends_everywhere:
        held += shape.others
    begins, ends = first or shape.begins_everywhere, last or shape.ends_everywhere
    if begins:
        held.append(embedding)
    if ends:
        held.append(Part("norm", shape.config.hidden_size, ways=WHOLE))
        if not (begins and shape.tied) and not shape.headless:
            held.append(embedding)
    bits = sum(part.on_each(tensor_parallel_size) * weight_bits(part, shape.config, engine) for part in held)
    return int(bits / 8)


def token_bytes(layer: Layer, config: TextConfig, engine: Engine, *, tensor_parallel_size: int = 1) -> float:
    """Keys and values of one token in one layer, on each GPU (vllm/v1/kv_cache_interface.py, AttentionSpec)."""
    element = cache_element_bytes(config, engine) or Fraction()
    return float(sum(cache.token_bytes(element, tensor_parallel_size) for cache in layer.state.caches))


def kept_of(layers: Sequence[Layer], config: TextConfig, engine: Engine, *, tensor_parallel_size: int) -> Kept:
    """What layers keep of a sequence, on each GPU of their stage."""
    element = cache_element_bytes(config, engine) or Fraction()
    sizes: dict[str, Fraction | int] = {"recurrent": _recurrent_bytes(config, engine), "crossed": element}
    by_window: dict[int | None, Fraction] = {}
    fixed = 0
    for layer in layers:
        for cache in layer.state.caches:
            each = cache.token_bytes(element, tensor_parallel_size)
            by_window[cache.window] = by_window.get(cache.window, Fraction()) + each
        for part in layer.state.fixed:
            fixed += int(part.on_each(tensor_parallel_size) * sizes.get(part.kind, element_bytes(config, engine)))
    return Kept(tuple((float(each), window) for window, each in by_window.items() if each), fixed)


def _recurrent_bytes(config: TextConfig, engine: Engine) -> int:
    """Of an element of a recurrent state."""
    usual = 4 if config.model_type in IN_32_BITS else element_bytes(config, engine)
    return DTYPE_BYTES.get(config.ssm_dtype or "", usual)


def usable(memory: int, engine: Engine) -> int:
    """The memory that vLLM uses of a GPU."""
    return int((memory - RESERVED) * engine.gpu_memory_utilization)


def room_for_sequences(memory: int, engine: Engine, *, held: int) -> int:
    """Bytes for sequences on a GPU; negative when not even the rest fits.

    Args:
        held: by weights and overhead. With --kv-cache-memory-bytes vLLM takes that much and no share of the
            GPU counts (vllm 0.32, vllm/v1/worker/gpu_worker.py, determine_available_memory).
    """
    if engine.kv_cache_memory_bytes is None:
        return usable(memory, engine) - held
    return min(engine.kv_cache_memory_bytes, int(memory - RESERVED) - held)


def overhead_beyond_weights(
    config: TextConfig, engine: Engine, batch: Batch, *, layers: int, tensor_parallel_size: int, last: bool
) -> int:
    """An estimate of activations, graphs and buffers.

    A batch has its hidden states, residual and what attention makes of them, and what the widest feed-forward layer
    makes, of experts a result each besides. When these are gone, the last stage has the logits of each sequence
    (vllm/v1/worker/gpu_model_runner.py, profile_run).

    Args:
        layers: of the stage.
    """
    experts = max(config.num_experts_per_token, 1) if config.num_experts else 0
    width = max(dense_size(config), shared_size(config), expert_size(config) * experts if experts else 0)
    per_token = (4 + experts) * config.hidden_size + 3 * width / tensor_parallel_size
    activations = batch.tokens * per_token * element_bytes(config, engine)
    logits = batch.sequences * config.vocab_size * LOGIT_BYTES if last else 0
    graphs = 0 if engine.enforce_eager else GRAPHS + layers * GRAPHS_A_LAYER
    return int(max(activations, logits) + BUFFERS + graphs)
