"""What vLLM itself says about a model's config.json: the answer that vllmray's own arithmetic is held against.

Stand-alone: standard library, torch and vLLM, run with the Python of the environment that has vLLM for CPUs and vllmray
(for its platform plugin, without which vLLM for CPUs refuses Ray). No weights, no network, no Ray, no device.

    python tests/oracle/vllm_oracle.py

reads one JSON object a line, prints one JSON object a line, and ends with its input. A test starts it once and asks
many times: the first question costs the imports (half a minute on a slow disk), a later one 10 to 500 ms. With --sweep
it also builds models whose class no library has, and experts that no CPU computes.

{"do": "config", "config": {…}, "tensor_parallel_size": 2, "pipeline_parallel_size": 1, "max_model_len": null,
 "enable_expert_parallel": false, "quantization": null}
    Builds vLLM's configuration as `vllm serve` does, with the Ray executor. Only "config" is needed.
    {"ok": true, "architecture": …, "model_class": …, "kv_heads": …, "head_size": …, "layers": …, "max_model_len": …, …}

{"do": "shard", …the same…, "rank": 3, "detail": false}
    Builds the layers that this rank (pipeline stage = rank // tensor_parallel_size) holds, on the meta device.
    {"ok": true, "parameters": …, "bytes": …, "by_prefix": {"layers.0": bytes, "embed": …, "lm_head": …, "norm": …},
     "kv": [{"layer": …, "kind": "FullAttentionSpec", "page_size_bytes": …, "block_size": …, …}, …]}
    page_size_bytes is for block_size tokens, except for MambaSpec, where it is for a whole sequence.
    With "detail", "tensors" has name, shape and dtype of each parameter.

    With "language_model_only", towers that need an image library are left out, as --language-model-only does;
    "language_bytes" is the language model's part either way.

{"do": "architectures"}
    {"ok": true, "registered": …, "served": [names, without drafts]}

Where vLLM refuses: {"ok": false, "error": "ValueError", "message": …, "at": "file:line"}. "error": "Unsupported" means
that only this machine's lack of a GPU is in the way.

What is not as on a GPU: process groups are stand-ins that know sizes and ranks only; the CPU is taken to have the
instructions that fp8 and mxfp4 kernels ask for (no kernel runs); image libraries that are missing are empty modules;
block_size is the CPU platform's; kernels of GPUs may pad weights after loading.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.abc
import importlib.machinery
import importlib.util
import io
import json
import logging
import os
import re
import sys
import tempfile
import traceback
import types
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

ENVIRONMENT = {
    "VLLMRAY_CPU_SLOTS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "CUDA_VISIBLE_DEVICES": "",
}
ABSENT_LIBRARIES = ("torchvision", "torchaudio", "cv2", "timm", *(("cutlass", "cuda") if "--sweep" in sys.argv else ()))
# What vLLM says where a kernel is missing, not where a shape is wrong.
NO_KERNEL = re.compile(
    r"Failed to find a kernel|backend supports the deployment|not supported (on|in|by) (the )?(current platform|cpu)"
    r"|supported only for CUDA|dummy base class|`internvl_chat` but Transformers does not|no valid sparse MLA backend"
    r"|only supported on|requires (CUDA|a GPU)|_OpNamespace|No module named|Cannot copy out of meta tensor",
    re.IGNORECASE,
)


class EmptyClass(type):
    """The type of a class that has every attribute."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return EmptyClass(name, (), {})

    def __call__(cls, *_: Any, **__: Any) -> Any:
        return cls


class EmptyModule(types.ModuleType):
    """A module that has every name."""

    __path__: list[str] = []  # noqa: RUF012  # what makes it a package

    def __getattr__(self, name: str) -> Any:
        return getattr(EmptyClass(self.__name__, (), {}), name)


class EmptyModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds libraries for images and sound that nobody calls here, but that model files import."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] not in ABSENT_LIBRARIES:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return EmptyModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """There is nothing to run."""


class Group:
    """Stands in for vllm.distributed.parallel_state.GroupCoordinator: the same attributes, no communication."""

    device_communicator = None
    mq_broadcaster = None
    use_device_communicator = False
    local_rank = 0
    device_index = 0

    def __init__(self, name: str, ranks: list[int], rank: int) -> None:
        import torch

        self.unique_name, self.ranks, self.rank = name, ranks, rank
        self.world_size, self.rank_in_group = len(ranks), ranks.index(rank)
        self.is_first_rank, self.is_last_rank = rank == ranks[0], rank == ranks[-1]
        self.first_rank, self.last_rank = ranks[0], ranks[-1]
        self.device = torch.device("cpu")
        # All that layers ask of a process group while they are built.
        sizes = types.SimpleNamespace(size=lambda: self.world_size, rank=lambda: self.rank_in_group)
        self.device_group = self.cpu_group = sizes


def prepare() -> None:
    """Imports vLLM so that it is quiet, inspects models in this process and takes every CPU kernel for available."""
    os.environ.update(ENVIRONMENT)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    import torch
    import transformers

    transformers.logging.set_verbosity(logging.CRITICAL)
    # Asked before the empty modules are there, and remembered: transformers must not believe in them.
    transformers.utils.is_torchvision_available()
    sys.meta_path.append(EmptyModules())
    import stand_ins  # type: ignore[import-not-found]  # beside this program

    torch.cpu._is_amx_tile_supported = lambda: True
    torch.cpu._is_avx512_bf16_supported = lambda: False  # with it, states of sequences get another type than on GPUs

    from vllm import _custom_ops
    from vllm.model_executor.layers.fused_moe.expert_map_manager import ExpertMapManager
    from vllm.model_executor.models import registry

    _custom_ops._supports_cpu_fp8_w8a16 = True
    ExpertMapManager.get_compressed_map_string = lambda _: ""  # for the log; reads tensors that have no numbers here

    def inspect_here(model: Any) -> Any:
        return registry._ModelInfo.from_model_cls(model.load_model_cls())

    register_published()
    # vLLM starts a process to look at each class, so that CUDA stays untouched: seconds, and no use here.
    registry._LazyRegisteredModel.inspect_model_cls = inspect_here
    if "--sweep" in sys.argv:
        stand_ins.stand_in()
    gc.freeze()  # what is imported stays: not to be looked through each time that a model's modules are cleared away


class Named(dict[str, Any]):
    """An object of a config.json, whose keys are attributes too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def register_published() -> None:
    """Makes known a configuration class that models bring as code of their own: names and values as they stand."""
    from transformers import AutoConfig, PreTrainedConfig

    class NemotronNas(PreTrainedConfig):  # type: ignore[misc]  # transformers is not here where this is checked
        model_type = "nemotron-nas"

        def __init__(self, block_configs: Any = (), **values: Any) -> None:
            for name, value in values.items():
                setattr(self, name, value)
            super().__init__(**values)
            self.block_configs = [Named({name: Named(part) for name, part in each.items()}) for each in block_configs]

    AutoConfig.register(NemotronNas.model_type, NemotronNas)


def build_config(request: dict[str, Any], folder: Path) -> Any:
    """vLLM's configuration, made as `vllm serve` makes it."""
    import stand_ins
    from vllm.engine.arg_utils import EngineArgs

    if "--sweep" in sys.argv:
        stand_ins.register_unknown(request["config"])
    (folder / "config.json").write_text(json.dumps(request["config"]))
    return EngineArgs(
        model=str(folder),
        skip_tokenizer_init=True,
        load_format="dummy",
        enforce_eager=True,
        distributed_executor_backend="ray",
        tensor_parallel_size=request.get("tensor_parallel_size", 1),
        pipeline_parallel_size=request.get("pipeline_parallel_size", 1),
        enable_expert_parallel=request.get("enable_expert_parallel", False),
        max_model_len=request.get("max_model_len"),
        quantization=request.get("quantization"),
        language_model_only=request.get("language_model_only", False),
    ).create_engine_config()


def answer_config(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What vLLM has understood of the model."""
    config = build_config(request, folder)
    model = config.model_config
    return {
        "ok": True,
        "architecture": model.architecture,
        "model_class": model._model_info.architecture,
        "attention_heads": model.model_arch_config.total_num_attention_heads,
        "kv_heads": model.get_total_num_kv_heads(),
        "kv_heads_per_rank": model.get_num_kv_heads(config.parallel_config),
        "head_size": model.get_head_size(),
        "hidden_size": model.get_hidden_size(),
        "layers": model.get_total_num_hidden_layers(),
        "vocab_size": model.get_vocab_size(),
        "experts": model.get_num_experts(),
        "max_model_len": model.max_model_len,
        "use_mla": model.use_mla,
        "is_hybrid": model.is_hybrid,
        "dtype": str(model.dtype).removeprefix("torch."),
        "quantization": model.quantization,
        "sliding_window": model.get_sliding_window(),
    }


def set_groups(tp: int, pp: int, rank: int) -> None:
    """Makes this process the rank of a cluster: the layout is PP x TP, as vllm/distributed/parallel_state.py has it."""
    from vllm.distributed import parallel_state

    stage, place = divmod(rank, tp)
    tensor = Group("tp", [stage * tp + each for each in range(tp)], rank)
    alone = Group("alone", [rank], rank)
    parallel_state._WORLD = Group("world", list(range(tp * pp)), rank)
    parallel_state._TP = parallel_state._ETP = parallel_state._EP = tensor
    parallel_state._PP = Group("pp", [each * tp + place for each in range(pp)], rank)
    parallel_state._DP = parallel_state._PCP = parallel_state._DCP = alone


def build_model(config: Any, rank: int) -> Any:
    """The layers of one rank, without memory behind them."""
    import stand_ins
    import torch
    from vllm.config import set_current_vllm_config
    from vllm.model_executor.model_loader.utils import get_model_architecture, initialize_model
    from vllm.utils.torch_utils import set_default_torch_dtype

    parallel = config.parallel_config
    set_groups(parallel.tensor_parallel_size, parallel.pipeline_parallel_size, rank)
    parallel.rank = rank
    module = sys.modules[get_model_architecture(config.model_config)[0].__module__]
    stand_ins.read_numbers_on_cpu(module)
    dtype = config.model_config.dtype
    with set_current_vllm_config(config), set_default_torch_dtype(dtype), torch.device("meta"):
        return initialize_model(config)


def prefix_of(name: str) -> str:
    """The part of the model that holds a parameter: "layers.7", "embed", "lm_head", "norm", "vision" or its own."""
    if re.search(r"(^|\.)(visual|vision\w*|multi_modal_projector|\w*image\w*)\.", name):
        return "vision"
    if layer := re.search(r"(^|\.)(layers|h|blocks)\.(\d+)\.", name):
        return f"layers.{layer[3]}"
    for part, pattern in (
        ("lm_head", r"(^|\.)(lm_head|embed_out|output)\."),
        ("position", r"(wpe|embed_positions|position_embeddings)\."),
        ("norm", r"(norm\w*|ln_f|ln_\w+|layernorm\w*|layer_norm)\.\w+$"),
        ("embed", r"(embed\w*|wte|word_embeddings|tok_embeddings)\."),
    ):
        if re.search(pattern, name):
            return part
    return name.rsplit(".", 1)[0]


def describe_cache(layer: str, spec: Any) -> dict[str, Any]:
    """What the cache of one layer takes, as vLLM's KV cache manager is told."""
    known = ("block_size", "num_kv_heads", "head_size", "sliding_window", "attention_chunk_size")
    shapes = getattr(spec, "shapes", None)
    return {
        "layer": layer,
        "kind": type(spec).__name__,
        "page_size_bytes": spec.page_size_bytes,
        **{name: getattr(spec, name, None) for name in known},
        "dtype": str(getattr(spec, "dtype", None)).removeprefix("torch."),
        "shapes": [list(shape) for shape in shapes] if shapes else None,
    }


def answer_shard(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The weights and caches of one rank."""
    config = build_config(request, folder)
    model = build_model(config, request.get("rank", 0))
    language = language_parameters(model)
    sizes: Counter[str] = Counter()
    tensors: dict[str, list[Any]] = {}
    for name, tensor in model.named_parameters():  # a shared tensor comes once
        sizes[prefix_of(name)] += tensor.numel() * tensor.element_size()
        tensors[name] = [list(tensor.shape), str(tensor.dtype).removeprefix("torch.")]
    caches = [
        describe_cache(name, spec)
        for name, layer in config.compilation_config.static_forward_context.items()
        if hasattr(layer, "get_kv_cache_spec")
        and (spec := layer.get_kv_cache_spec(config)) is not None
        and getattr(layer, "kv_sharing_target_layer_name", None) is None  # has another layer's
    ]
    answer = {
        "ok": True,
        "parameters": sum(tensor.numel() for tensor in model.parameters()),
        "bytes": sum(sizes.values()),
        "language_bytes": sum(tensor.numel() * tensor.element_size() for tensor in language),
        "by_prefix": dict(sizes),
        "kv": caches,
    }
    return {**answer, "tensors": tensors} if request.get("detail") else answer


def language_parameters(model: Any) -> list[Any]:
    """Parameters of the language model: all of them, but for a model that sees or hears too."""
    try:
        if model.config.is_encoder_decoder:
            return list(model.parameters())
        language = model.get_language_model()
    except (AttributeError, NotImplementedError):
        return list(model.parameters())
    mine = {id(tensor): tensor for tensor in language.parameters()}
    head = getattr(model, "lm_head", None)
    if head is not None:
        mine |= {id(tensor): tensor for tensor in head.parameters()}
    return list(mine.values())


def answer_architectures(_: dict[str, Any], __: Path) -> dict[str, Any]:
    """What vLLM registers, without drafts, which are served beside a model and not by themselves."""
    from vllm.model_executor.models import registry

    served = set(registry._VLLM_MODELS) - set(registry._SPECULATIVE_DECODING_MODELS)
    return {"ok": True, "registered": len(registry._VLLM_MODELS), "served": sorted(served)}


def describe_error(error: BaseException) -> dict[str, Any]:
    """The error that vLLM has raised, taken out of pydantic's wrapping, and the line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    errors = getattr(error, "errors", None)
    if callable(errors) and (details := errors()) and "error" in details[0].get("ctx", {}):
        error = details[0]["ctx"]["error"]
        frames = traceback.extract_tb(error.__traceback__) or frames
    ours = [frame for frame in frames if f"{os.sep}vllm{os.sep}" in frame.filename] or list(frames)
    place = re.sub(r"^.*?([^/]+-packages/)", "", ours[-1].filename) if ours else ""
    message = " ".join(str(error).split())
    unsupported = bool(NO_KERNEL.search(message))
    return {
        "ok": False,
        "error": "Unsupported" if unsupported else type(error).__name__,
        "message": message[:300],
        "at": f"{place}:{ours[-1].lineno}" if ours else "",
    }


def answer(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The answer to one request; what vLLM raises is an answer too."""
    handlers = {"config": answer_config, "shard": answer_shard, "architectures": answer_architectures}
    if request.get("do") not in handlers:
        return {"ok": False, "error": "Unknown", "message": f"do is one of {sorted(handlers)}", "at": ""}
    try:
        return handlers[request["do"]](request, folder)
    except Exception as error:  # noqa: BLE001  # whatever vLLM raises is what the test asks for
        return describe_error(error)


def main() -> None:
    """Answers each line of the input; what libraries print goes nowhere."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with tempfile.TemporaryDirectory(prefix="oracle-") as name, contextlib.redirect_stdout(io.StringIO()):
        folder = Path(name)
        os.environ.update(VLLM_CACHE_ROOT=str(folder / "cache"), VLLM_CONFIG_ROOT=str(folder / "settings"))
        prepare()
        for line in sys.stdin:
            print(json.dumps(answer(json.loads(line), folder)), file=answers, flush=True)


if __name__ == "__main__":
    main()
