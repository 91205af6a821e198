"""What the user's own arguments of the vLLM server say about memory and parallelism; pure.

Flags: vllm 0.33, vllm/engine/arg_utils.py. What is not listed here is vLLM's business alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

SHORT = {"-q": "--quantization", "-ep": "--enable-expert-parallel"}
# As vLLM reads counts: k, m and g are thousands, K, M and G are 1024 (vllm/engine/arg_utils.py, human_readable_int).
FACTORS = {"k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30}


def _count(value: object) -> object:
    if isinstance(value, str) and value[-1:] in FACTORS:
        number, factor = value[:-1], FACTORS[value[-1]]
        try:
            return int(float(number) * factor)
        except (ValueError, OverflowError):
            return value
    return value


Count = Annotated[int, BeforeValidator(_count), Field(ge=1)]


class EngineOptions(BaseModel):
    """Those of vLLM's options that decide what fits; the defaults are vLLM's own, None leaves it to vLLM."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    dtype: str = "auto"
    quantization: str | None = None
    kv_cache_dtype: str = "auto"
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.92
    max_num_seqs: Count | None = None
    max_num_batched_tokens: Count | None = None
    enforce_eager: bool = False
    enable_expert_parallel: bool = False
    mm_encoder_tp_mode: str = "weights"
    load_format: str = "auto"
    revision: str | None = None


SWITCHES = {name for name, field in EngineOptions.model_fields.items() if field.annotation is bool}


def engine_options(vllm_args: Sequence[str]) -> EngineOptions:
    """Those that are given, as vLLM's parser takes them: --flag value, --flag=value, - or _ between words.

    Raises:
        pydantic.ValidationError: a value that vLLM would refuse too; its field is the option's name.
    """
    return EngineOptions.model_validate(dict(_given(vllm_args)))


def _given(vllm_args: Sequence[str]) -> Iterator[tuple[str, object]]:
    for at, arg in enumerate(vllm_args):
        flag, separator, value = arg.partition("=")
        name = SHORT.get(flag, flag).removeprefix("--").replace("-", "_")
        if not flag.startswith("-") or name.removeprefix("no_") not in EngineOptions.model_fields:
            continue
        if name.removeprefix("no_") in SWITCHES:
            yield name.removeprefix("no_"), not name.startswith("no_")
        elif separator:
            yield name, value
        elif at + 1 < len(vllm_args):
            yield name, vllm_args[at + 1]
