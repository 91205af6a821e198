"""What vLLM asks of a machine with GPUs, of a tokenizer and of a program beside a model, answered so that it builds.

Used by vllm_oracle.py alone, in the process that has vLLM. Nothing here decides a size or a
refusal of the sweep's; kernels of CPUs pad some widths of experts, which cases with random widths must not meet.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import types
from typing import Any

SECTIONS = (
    "text_config",
    "llm_config",
    "vision_config",
    "audio_config",
    "vit_config",
    "adapter_config",
    "projector_config",
)
"""Parts of a configuration that are configurations themselves."""
ONLY_ON_GPUS = ("chunk_lookback", "use_alibi_sqrt", "topk_indices_buffer", "indexer", "index_group_builder")
SLOPES = ("_get_alibi_slopes", "_get_step_alibi_slopes")


def register_unknown(config: dict[str, Any]) -> None:
    """The program that comes with a model which transformers does not know: every field as it is."""
    from transformers import AutoConfig, PretrainedConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    name = str(config.get("model_type"))
    if name in CONFIG_MAPPING or not config.get("model_type"):
        return

    def read(section: dict[str, Any]) -> Any:
        known = section.get("model_type")
        return AutoConfig.for_model(**section) if known in CONFIG_MAPPING else PretrainedConfig(**section)

    def start(self: Any, **fields: Any) -> None:
        for key in ("max_position_embeddings", "hidden_size"):  # looked at while the rest is set
            setattr(self, key, fields.get(key))
        read_too = {key: read(each) for key, each in fields.items() if key in SECTIONS and isinstance(each, dict)}
        PretrainedConfig.__init__(self, **{key: each for key, each in fields.items() if key not in read_too})
        for key, each in read_too.items():
            setattr(self, key, each)

    made = type(f"{name.title()}Config", (PretrainedConfig,), {"model_type": name, "__init__": start})
    with contextlib.suppress(ValueError):  # vllm knows it
        AutoConfig.register(name, made)


def on_cpu(compute: Any) -> Any:
    """The function, with its tensors on the CPU whatever the default device is."""
    import torch

    @functools.wraps(compute)
    def compute_on_cpu(*arguments: Any, **named: Any) -> Any:
        with torch.device("cpu"):
            return compute(*arguments, **named)

    compute_on_cpu.on_cpu = True  # type: ignore[attr-defined]
    return compute_on_cpu


def read_numbers_on_cpu(module: Any) -> None:
    """Slopes are read back as numbers while the layers are built, which the meta device cannot do."""
    for name in SLOPES:
        compute = getattr(module, name, None)
        if compute and not hasattr(compute, "on_cpu"):
            setattr(module, name, on_cpu(compute))


def without(build: Any, *names: str) -> Any:
    """The constructor, which does not get these: kernels of GPUs have them."""

    def build_without(self: Any, *rest: Any, **named: Any) -> None:
        build(self, *rest, **{name: each for name, each in named.items() if name not in names})

    return build_without


def stand_in() -> None:
    """For kernels and tokenizers."""
    import torch
    from vllm import tokenizers, triton_utils
    from vllm.model_executor.layers import activation
    from vllm.model_executor.layers.attention.mla_attention import MLACommonImpl
    from vllm.model_executor.layers.fused_moe import config as experts
    from vllm.model_executor.layers.fused_moe.experts.cpu_moe import CPUExpertsInt4, CPUUnquantizedExperts
    from vllm.platforms import current_platform
    from vllm.platforms.cpu import CpuPlatform
    from vllm.tokenizers import registry
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend, CPUAttentionBackendImpl

    for kind in (activation.XIELU, activation.GeluAndMulSparse):
        kind.__init__ = on_cpu(kind.__init__)
    torch.nn.Module.to = lambda self, *_, **__: self
    if not hasattr(triton_utils.triton, "set_allocator"):
        triton_utils.triton.set_allocator = lambda _: None

    class Gpu:
        """The platform of a GPU, where experts ask for it."""

        is_xpu = staticmethod(lambda: True)

        def __getattr__(self, name: str) -> Any:
            return getattr(current_platform, name)

    experts.current_platform = Gpu()
    choose = CpuPlatform.get_attn_backend_cls.__func__

    def choose_dense(cls: Any, backend: Any, /, attn_selector_config: Any, **named: Any) -> Any:
        return choose(cls, backend, attn_selector_config._replace(use_sparse=False), **named)

    CpuPlatform.get_attn_backend_cls = classmethod(choose_dense)
    for attending in (CPUAttentionBackendImpl, MLACommonImpl):
        attending.__init__ = without(attending.__init__, *ONLY_ON_GPUS)
    CPUAttentionBackend.supports_alibi_sqrt = classmethod(lambda _: True)
    for last in (CPUUnquantizedExperts, CPUExpertsInt4):
        last.is_supported_config = staticmethod(lambda *_: (True, None))
    torch.cuda.Event = torch.cuda.Stream = types.SimpleNamespace
    tokenizer = types.SimpleNamespace(
        vocab=collections.defaultdict(int), encode=lambda *_, **__: [0], get_vocab=lambda: collections.defaultdict(int)
    )
    tokenizer.convert_tokens_to_ids = lambda *_: 0
    registry.cached_tokenizer_from_config = tokenizers.cached_tokenizer_from_config = lambda *_, **__: tokenizer
