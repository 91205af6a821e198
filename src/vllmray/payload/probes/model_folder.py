"""Inspects a model folder: its config.json, and how many bytes its weights have by the headers of their files.

Standard library only: its argument is the folder, and it prints one JSON object; vllmray may also call `look()` in its
own process. The files of the weights are chosen by their names as vLLM does (vllm 0.32,
vllm/model_executor/model_loader/default_loader.py, _prepare_weights): in the folder itself, not in subfolders.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

CONFIG = "config.json"
QUANTIZATION = "hf_quant_config.json"
"""Where ModelOpt's older releases put what config.json lacks (vllm 0.32, transformers_utils/config.py, get_config)."""
MAX_LINKS = 40  # as the kernel follows (path_resolution(7))
MAX_JSON = 64 * 1024**2
"""Bytes of a config.json or an index; the largest known have a thousandth and a quarter of that."""
MAX_HEADER = 100_000_000
"""Bytes of a safetensors header: the format's own limit (safetensors/src/tensor.rs, MAX_HEADER_SIZE)."""
INDEXES = ("model.safetensors.index.json", "consolidated.safetensors.index.json")
OTHER_WEIGHTS = (".bin", ".pt", ".pth", ".gguf", ".ckpt", ".h5", ".msgpack", ".onnx")
# Left behind by training; vLLM leaves them out too (filter_files_not_needed_for_inference in its weight_utils.py).
NO_WEIGHTS = ("training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scaler.pt")
NUMBERED = re.compile(r"(.+)-\d+-of-(\d+)\.safetensors")


class DamagedError(Exception):
    """A file of the model is missing or damaged; the text names it."""


def weights_among(names: Collection[str]) -> str:
    """Of these files' names: "safetensors", "other" formats only, or "none"."""
    if any(name.endswith(".safetensors") for name in names) or index_among(names):
        return "safetensors"
    return "other" if any(name.endswith(OTHER_WEIGHTS) and name not in NO_WEIGHTS for name in names) else "none"


def index_among(names: Collection[str]) -> str | None:
    """The index file, which lists the files with the weights; None where there is none."""
    return next((name for name in INDEXES if name in names), None)


def lack_of_config(names: Collection[str]) -> str | None:
    """Why a folder with these files has no usable config.json; None when it has one."""
    if CONFIG in names:
        return None
    if "adapter_config.json" in names:
        return f"there is no {CONFIG}: it is a LoRA adapter (adapter_config.json), which needs its base model"
    if "params.json" in names:
        return f"there is no {CONFIG}, only Mistral's own params.json, which vllmray does not read"
    if any(name.endswith(".gguf") for name in names):
        return f"there is no {CONFIG}, only GGUF files, which vllmray does not read"
    return f"there is no {CONFIG}"


def plain_shards(names: Collection[str]) -> list[str]:
    """The safetensors files that hold the weights where there is no index.

    Mistral's repositories have the same weights twice: in one consolidated.safetensors and in shards.
    """
    found = sorted(name for name in names if name.endswith(".safetensors"))
    return [name for name in found if not name.startswith("consolidated")] or found


def is_one_set(shards: list[str]) -> bool:
    """Whether they are …-00001-of-0000N to …-0000N-of-0000N: one complete set, so that no index need be read.

    Some count from 0 to N.
    """
    matches = [NUMBERED.fullmatch(name) for name in shards]
    sets = {match.groups() if match else None for match in matches}
    return len(sets) == 1 and all(match and len(shards) >= int(match[2]) for match in matches)


def shards(names: Collection[str], index: bytes | None) -> list[str]:
    """The safetensors files that hold the weights.

    Args:
        names: all files of the folder.
        index: the content of the file that index_among() names.

    Raises:
        DamagedError: one that the index lists, or that the numbers in the names imply, is missing.
    """
    if index is not None:
        named = _named(index)
        missing = sorted(named.difference(names))
        if missing:
            raise DamagedError(
                f"{len(missing)} of its {len(named)} weight files are missing, the first is {missing[0]}"
            )
        return sorted(named)
    found = plain_shards(names)
    numbered = [match for match in map(NUMBERED.fullmatch, found) if match]
    if numbered and len(numbered) < int(numbered[0][2]):
        count = f"{len(numbered)} of its {int(numbered[0][2])}"
        raise DamagedError(f"only {count} weight files ({found[0]}, …) are present")
    return found


def _named(index: bytes) -> set[str]:
    try:
        named = set(json.loads(index)["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        named = {None}
    if not all(isinstance(name, str) for name in named):
        raise DamagedError("the index of its weight files (…safetensors.index.json) is damaged")
    return named


def tensor_bytes(path: Path) -> int:
    """The bytes of a safetensors file's tensors, by its header (8 bytes of length, then JSON; the data is not read).

    Raises:
        DamagedError: the file can't be read, is not a safetensors file, or is not as long as its header says.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > MAX_HEADER:
                raise DamagedError(f"{path.name} is not a safetensors file, or is cut off")
            header = file.read(length)
    except OSError as error:
        raise DamagedError(f"{path.name} can't be read: {_why(path, error)}") from error
    spans = _spans(path.name, header)
    end = 8 + length + max((end for _, end in spans), default=0)
    if size != end:
        raise DamagedError(f"{path.name} has {size} bytes, but {end} by its header: it is incomplete")
    return sum(end - begin for begin, end in spans)


def _spans(name: str, header: bytes) -> list[tuple[int, int]]:
    """Where each tensor begins and ends, in bytes after the header."""
    try:
        entries = json.loads(header)
        spans = [tuple(entry["data_offsets"]) for key, entry in entries.items() if key != "__metadata__"]
        right = all(type(begin) is type(end) is int and 0 <= begin <= end for begin, end in spans)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        right = False
    if not right:
        raise DamagedError(f"the header of {name} is damaged")
    return spans


def _why(path: Path, error: OSError) -> str:
    """The error's text; a snapshot of the hub's cache has links to its blobs, so a dangling one is named."""
    if path.is_symlink() and not path.exists():
        return f"it is a symbolic link to {path.readlink()}, which does not exist"
    return error.strerror or str(error)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_JSON + 1)
    except OSError as error:
        raise DamagedError(f"{path.name} can't be read: {_why(path, error)}") from error
    if len(content) > MAX_JSON:
        raise DamagedError(f"{path.name} is larger than {MAX_JSON // 1024**2} MiB")
    return content


def _config(folder: Path, names: Collection[str]) -> str:
    lack = lack_of_config(names)
    if lack:
        raise DamagedError(lack)
    try:
        return _read(folder / CONFIG).decode()
    except UnicodeDecodeError as error:
        raise DamagedError(f"{CONFIG} is not UTF-8 text ({error.reason} at byte {error.start})") from error


def _quantization(folder: Path, names: Collection[str]) -> str | None:
    return _read(folder / QUANTIZATION).decode(errors="replace") if QUANTIZATION in names else None


def _weight_bytes(folder: Path, names: Collection[str]) -> int:
    index = index_among(names)
    content = _read(folder / index) if index else None
    return sum(tensor_bytes(folder / name) for name in shards(names, content))


def links_out_of(folder: Path) -> list[str]:
    """The folders outside of this one that its symbolic links lead to, those of intermediate links too."""
    own = Path(os.path.normpath(folder))
    found = set()
    for entry in own.iterdir():
        path = entry
        for _ in range(MAX_LINKS):
            if not path.is_symlink():
                break
            path = Path(os.path.normpath(path.parent / path.readlink()))
            found.add(path.parent)
    return sorted(str(each) for each in found if each != own and own not in each.parents)


def look(folder: Path) -> dict[str, Any]:
    """All of the answer.

    Returns:
        config: the text of config.json, None when it can't be read; quantization: of QUANTIZATION, None without it;
        weight_bytes: None when it is not known; weights: as weights_among() says; outside: as links_out_of() says;
        problem: what is missing or damaged, None when nothing is.
    """
    answer: dict[str, Any] = {
        "config": None,
        "quantization": None,
        "weight_bytes": None,
        "weights": "none",
        "outside": [],
        "problem": None,
    }
    try:
        answer["outside"] = links_out_of(folder)
        names = sorted(entry.name for entry in folder.iterdir())
        answer["weights"] = weights_among(names)
        answer["config"] = _config(folder, names)
        answer["quantization"] = _quantization(folder, names)
        if answer["weights"] == "safetensors":
            answer["weight_bytes"] = _weight_bytes(folder, names)
    except OSError as error:
        answer["problem"] = f"the folder can't be read: {error.strerror}"
    except DamagedError as error:
        answer["problem"] = str(error)
    return answer


if __name__ == "__main__":
    sys.stdout.write(json.dumps(look(Path(sys.argv[1]))) + "\n")
