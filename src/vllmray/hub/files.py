"""What is known of a model before it is started: its config and the size of its weights, read from what was found."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from vllmray.errors import ConfigError
from vllmray.payload.probes import model_folder as folder

Weights = Literal["safetensors", "other", "none", "unknown"]
WITHOUT = "`--no-model-check` skips this check."


class HubUnreachableError(ConfigError):
    """The hub did not answer, or not as a hub does: nothing is known of the model."""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model's config and the size of its weights."""

    model: str
    """As the user named it."""
    where: str
    """For a person: "folder /models/x", "cache /…/snapshots/…", "hub huggingface.co"."""
    config: Mapping[str, Any]
    """config.json."""
    weight_bytes: int | None
    """Of all its tensors; None when it is not known. From a hub it is the files' size: with their headers, which are
    less than a thousandth."""
    weights: Weights
    """Their format: "other" is .bin, .gguf, …, and "unknown" says that only the config was read."""
    outside: tuple[str, ...] = ()
    """Folders outside of the model's own that its files are links to."""


def describe(model: str, where: str) -> str:
    """How an error names the model and the place."""
    return where if model in where else f"{model} ({where})"


def parse_config(content: bytes | str, *, model: str, where: str, name: str = folder.CONFIG) -> Mapping[str, Any]:
    """The content of config.json, or of another file of that name, read.

    Raises:
        ConfigError: it is too large, not UTF-8, cut off, not JSON, or not an object.
    """
    try:
        if len(content) > folder.MAX_JSON:
            problem = f"is larger than {folder.MAX_JSON // 1024**2} MiB"
        else:
            config = json.loads(content if isinstance(content, str) else content.decode())
            if isinstance(config, dict):
                return config
            problem = "is not a JSON object"
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 text ({error.reason} at byte {error.start})"
    except (ValueError, RecursionError) as error:
        problem = f"is not valid JSON, or is cut off ({error})"
    raise damaged(f"{name} {problem}", model=model, where=where)


def _quantised(config: Mapping[str, Any], read: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """The config with the quantisation that ModelOpt's older releases put into a file of its own, as vLLM names it.

    Source: vllm 0.32, vllm/transformers_utils/model_arch_config_convertor.py, _normalize_quantization_config.

    Args:
        read: that file; asked only where config.json has no quantisation.
    """
    if config.get("quantization_config") is not None:
        return config
    found = read()
    inner = found.get("quantization")
    if not isinstance(inner, Mapping) or not inner.get("quant_algo"):
        return config
    algorithm = str(inner["quant_algo"]).lower()
    method = "modelopt_fp4" if algorithm == "nvfp4" else "modelopt" if "fp8" in algorithm else f"modelopt_{algorithm}"
    return {**config, "quantization_config": {**inner, "quant_method": method}}


def damaged(problem: str, *, model: str, where: str) -> ConfigError:
    """The error for a missing or invalid file of the model."""
    kind, _, place = where.partition(" ")
    hint = {
        "folder": f"Complete the folder, for example: hf download ORG/NAME --local-dir {model}",
        "cache": f"Delete it, so that it is downloaded again: rm -r {Path(place).parent.parent}",
    }.get(kind, "Check the model's files there, or name another model.")
    return ConfigError(f"{describe(model, where)}: {problem}", hint=f"{hint}\n{WITHOUT}")


def from_folder(answer: Mapping[str, Any], *, model: str, where: str) -> ModelFiles:
    """The model that payload/probes/model_folder.py has read.

    Args:
        answer: what look() gives, or the program prints.

    Raises:
        ConfigError: something is missing or damaged there.
    """
    if answer["problem"] is not None:
        raise damaged(answer["problem"], model=model, where=where)
    config = parse_config(answer["config"], model=model, where=where)
    apart = answer.get("quantization")
    if apart is not None:
        config = _quantised(config, lambda: parse_config(apart, model=model, where=where, name=folder.QUANTIZATION))
    weights = cast(Weights, answer["weights"])
    return ModelFiles(model, where, config, answer["weight_bytes"], weights, tuple(answer.get("outside", ())))


def from_listing(
    sizes: Mapping[str, int | None], read: Callable[[str], bytes], *, model: str, where: str
) -> ModelFiles:
    """The model that a hub has.

    A hub's own counts of parameters are not used: packed formats are unpacked in them and their scales left out
    (huggingface.js, pull requests 1770, 2003 and 2323), so they do not give the size in bytes.

    Args:
        sizes: in bytes, of each file by its path there.
        read: fetches a small file.

    Raises:
        ConfigError: something is missing or damaged there.
    """
    names = [name for name in sizes if "/" not in name]
    lack = folder.lack_of_config(names)
    if lack:
        raise damaged(lack, model=model, where=where)
    if (sizes[folder.CONFIG] or 0) > folder.MAX_JSON:
        raise damaged(f"{folder.CONFIG} is larger than {folder.MAX_JSON // 1024**2} MiB", model=model, where=where)
    config = parse_config(read(folder.CONFIG), model=model, where=where)
    if folder.QUANTIZATION in names:
        file = folder.QUANTIZATION
        config = _quantised(config, lambda: parse_config(read(file), model=model, where=where, name=file))
    weights = cast(Weights, folder.weights_among(names))
    size = _listed_bytes(sizes, names, read, model=model, where=where) if weights == "safetensors" else None
    return ModelFiles(model, where, config, size, weights)


def _listed_bytes(
    sizes: Mapping[str, int | None], names: list[str], read: Callable[[str], bytes], *, model: str, where: str
) -> int | None:
    """The index is fetched only where the names alone leave a doubt: for the largest models it has ten megabytes."""
    index = None if folder.is_one_set(folder.plain_shards(names)) else folder.index_among(names)
    try:
        found = [sizes[name] for name in folder.shards(names, read(index) if index else None)]
    except folder.DamagedError as error:
        raise damaged(str(error), model=model, where=where) from error
    return None if None in found else sum(size or 0 for size in found)
