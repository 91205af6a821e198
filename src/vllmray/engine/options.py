"""Reads the options for memory and parallelism from the user's arguments of the vLLM server; pure.

Flags: vllm 0.33, vllm/engine/arg_utils.py. Options that are not listed here are not read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from vllmray.engine.flags import Given, read_flags
from vllmray.engine.lengths import parse_count


def _json(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None


Count = Annotated[int, BeforeValidator(parse_count), Field(ge=1)]
GiB = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Json = Annotated[dict[str, Any], BeforeValidator(_json)]
Names = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]


class EngineOptions(BaseModel):
    """The options of vLLM that memory use depends on; the defaults are vLLM's own, None leaves it to vLLM."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    dtype: str = "auto"
    quantization: str | None = None
    quantization_config: Json = Field(default_factory=dict)
    kv_cache_dtype: str = "auto"
    kv_cache_dtype_skip_layers: Names = ()
    kv_cache_memory_bytes: Count | None = None
    num_gpu_blocks_override: Count | None = None
    disable_hybrid_kv_cache_manager: bool = False
    mamba_cache_dtype: str = "auto"
    mamba_ssm_cache_dtype: str = "auto"
    mamba_cache_mode: str = "none"
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.92
    cpu_offload_gb: GiB = 0.0
    offload_group_size: Annotated[int, Field(ge=0)] = 0
    max_num_seqs: Count | None = None
    max_num_batched_tokens: Count | None = None
    enforce_eager: bool = False
    enable_expert_parallel: bool = False
    mm_encoder_tp_mode: str = "weights"
    load_format: str = "auto"
    revision: str | None = None
    served_model_name: Names = ()
    hf_overrides: Json = Field(default_factory=dict)
    hf_config_path: str | None = None


SWITCHES = {name for name, field in EngineOptions.model_fields.items() if field.annotation is bool}


def engine_options(vllm_args: Sequence[str]) -> EngineOptions:
    """The options in these arguments, parsed as by vLLM; of several occurrences the last counts.

    Raises:
        pydantic.ValidationError: a value that vLLM would refuse too; its field is the option's name.
    """
    flags = read_flags(vllm_args).flags
    dotted = dict(_dotted(flags))
    return EngineOptions.model_validate({**dict(_given(flags)), **dotted})


def ambiguous(vllm_args: Sequence[str]) -> list[str]:
    """A line for each ambiguous abbreviation, which vLLM refuses, that matches an option of EngineOptions."""
    return [
        f"{flag.typed} is ambiguous: it could match {', '.join(flag.names)}"
        for flag in read_flags(vllm_args).flags
        if len(flag.names) > 1 and any(_field(name) in EngineOptions.model_fields for name in flag.names)
    ]


def _field(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


def _given(flags: Sequence[Given]) -> Iterator[tuple[str, object]]:
    for flag in flags:
        name = _field(flag.name)
        if len(flag.names) > 1 or flag.keys or name not in EngineOptions.model_fields:
            continue
        if name in SWITCHES:
            yield name, not flag.off
        elif flag.values:
            yield name, flag.values if name == "served_model_name" else flag.value


def _dotted(flags: Sequence[Given]) -> Iterator[tuple[str, object]]:
    """All --flag.key.key value of one flag, as the JSON that vLLM builds from them: it comes last, so it replaces the
    flag's own value (vllm 0.32, vllm/utils/argparse_utils.py, parse_args).
    """
    made: dict[str, Any] = {}
    for flag in flags:
        if flag.keys and len(flag.names) == 1 and flag.value is not None:
            _put(made.setdefault(flag.name, {}), flag.keys, _plain(flag.value))
    for flag_name, value in made.items():
        name = _field(flag_name)
        if name in EngineOptions.model_fields:
            yield name, value


def _put(table: dict[str, Any], keys: Sequence[str], value: object) -> None:
    for key in keys[:-1]:
        if not isinstance(table.get(key), dict):
            table[key] = {}
        table = table[key]
    table[keys[-1]] = value


def _plain(text: str) -> object:
    """JSON, a count, or the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return parse_count(text)


def overridden(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json with --hf-overrides applied.

    Merged as in vLLM (0.32, vllm/config/model.py, _apply_dict_overrides): a part that is a configuration itself, as
    text_config is, has single values replaced, at any depth; every other value, rope_parameters too, is replaced whole.
    """
    merged = dict(config)
    for name, value in overrides.items():
        is_part = name.endswith("_config") and name != "quantization_config" and isinstance(config.get(name), Mapping)
        merged[name] = _updated(config[name], value) if is_part and isinstance(value, Mapping) else value
    return merged


def _updated(part: Mapping[str, Any], updates: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(part)
    for name, value in updates.items():
        own = part.get(name)
        if isinstance(value, Mapping) and isinstance(own, Mapping):
            merged[name] = _updated(own, value)
        else:
            merged[name] = value
    return merged
