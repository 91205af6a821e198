"""The program that looks at a model folder, over real files; and what is made of its answer."""

from __future__ import annotations

import json
import random
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.rig.hub import index, safetensors
from vllmray.errors import ConfigError
from vllmray.hub.files import ModelFiles, from_folder
from vllmray.hub.read import read_model
from vllmray.payload.probes import model_folder as folder

CONFIG = b'{"model_type": "llama", "num_attention_heads": 32}'
SHARDS = {
    "model-00001-of-00002.safetensors": safetensors(a=(2, 3), b=(4,)),
    "model-00002-of-00002.safetensors": safetensors(c=(5,)),
}
SHARD_BYTES = 2 * (6 + 4 + 5)
INDEX = index(a="model-00001-of-00002.safetensors", c="model-00002-of-00002.safetensors")


def made(path: Path, files: dict[str, bytes]) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


def read(path: Path) -> ModelFiles | None:
    return read_model(str(path), token=None, cache=Path("none"), environment={})


def refusal(path: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert caught.value.message.startswith(f"folder {path}: ")
    assert "--no-model-check" in str(caught.value.hint)
    return caught.value


def as_a_program(path: Path) -> dict[str, Any]:
    """As a container runs it: the text alone, with nothing of ours beside it."""
    argv = [sys.executable, "-I", "-c", Path(folder.__file__).read_text(), str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd="/")
    assert done.stderr == ""
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_a_folder_that_this_machine_does_not_have_is_left_to_the_hosts(tmp_path: Path) -> None:
    assert read(tmp_path / "none") is None


def test_the_program_says_what_the_function_says(tmp_path: Path) -> None:
    whole = made(tmp_path / "whole", {"config.json": CONFIG, **SHARDS})
    for path in (whole, tmp_path / "none"):
        assert as_a_program(path) == folder.look(path)
    assert as_a_program(tmp_path / "none")["problem"] == "the folder can't be read: No such file or directory"
    found = from_folder(as_a_program(whole), model="/models/x", where="folder /models/x on 10.0.0.2")
    assert (found.config["num_attention_heads"], found.weight_bytes) == (32, SHARD_BYTES)


@pytest.mark.parametrize(
    ("algorithm", "method"), [("FP8", "modelopt"), ("NVFP4", "modelopt_fp4"), ("W4A8_AWQ", "modelopt_w4a8_awq")]
)
def test_a_quantisation_in_a_file_of_its_own_counts_where_the_config_has_none(
    tmp_path: Path, algorithm: str, method: str
) -> None:
    apart = {"quant_algo": algorithm, "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]}
    files = {"hf_quant_config.json": json.dumps({"producer": {"name": "modelopt"}, "quantization": apart}).encode()}
    found = read(made(tmp_path / "apart", {"config.json": CONFIG, **SHARDS, **files}))
    assert found is not None
    assert found.config["quantization_config"] == {**apart, "quant_method": method}
    own = b'{"quantization_config": {"quant_method": "fp8"}}'
    found = read(made(tmp_path / "own", {"config.json": own, **SHARDS, **files}))
    assert found is not None
    assert found.config["quantization_config"] == {"quant_method": "fp8"}


def test_a_damaged_file_of_a_quantisation_is_named(tmp_path: Path) -> None:
    path = made(tmp_path, {"config.json": CONFIG, **SHARDS, "hf_quant_config.json": b"{"})
    assert "hf_quant_config.json is not valid JSON" in refusal(path).message


@pytest.mark.parametrize(
    ("files", "weight_bytes", "weights"),
    [
        ({"model.safetensors": safetensors(a=(7, 2))}, 28, "safetensors"),
        (SHARDS, SHARD_BYTES, "safetensors"),
        (SHARDS | {"model.safetensors.index.json": INDEX}, SHARD_BYTES, "safetensors"),
        (SHARDS | {"consolidated.safetensors": safetensors(a=(99,))}, SHARD_BYTES, "safetensors"),
        (
            SHARDS
            | {"consolidated.safetensors": b"?", "extra.safetensors": b"?", "model.safetensors.index.json": INDEX},
            SHARD_BYTES,
            "safetensors",
        ),
        ({"consolidated.safetensors": safetensors(a=(9,))}, 18, "safetensors"),
        ({"model.safetensors": safetensors()}, 0, "safetensors"),
        ({"pytorch_model.bin": b"?"}, None, "other"),
        ({"model-Q4_K_M.gguf": b"?"}, None, "other"),
        ({"training_args.bin": b"?", "tokenizer.json": b"{}"}, None, "none"),
    ],
    ids=["one", "shards", "index", "both", "more-than-the-index", "consolidated", "empty", "bin", "gguf", "none"],
)
def test_the_weights_are_the_files_that_vllm_would_load(
    tmp_path: Path, files: dict[str, bytes], weight_bytes: int | None, weights: str
) -> None:
    found = read(made(tmp_path / "x", {"config.json": CONFIG, **files}))
    assert found == ModelFiles(
        str(tmp_path / "x"),
        f"folder {tmp_path / 'x'}",
        json.loads(CONFIG),
        weight_bytes,
        weights,  # type: ignore[arg-type]
    )


def test_what_lies_below_the_folder_is_not_counted(tmp_path: Path) -> None:
    path = made(tmp_path / "x", {"config.json": CONFIG, **SHARDS})
    made(path / "original", SHARDS)
    assert getattr(read(path), "weight_bytes", 0) == SHARD_BYTES


def test_a_snapshot_of_links_is_read_through_them(tmp_path: Path) -> None:
    blobs = made(tmp_path / "blobs", {"1": CONFIG, "2": safetensors(a=(3,))})
    snapshot = made(tmp_path / "snapshots" / "c", {})
    (snapshot / "config.json").symlink_to("../../blobs/1")
    (snapshot / "model.safetensors").symlink_to("../../blobs/2")
    assert getattr(read(snapshot), "weight_bytes", 0) == 6
    (blobs / "2").unlink()
    assert (
        "model.safetensors can't be read: it is a symbolic link to ../../blobs/2, which does not exist"
        in refusal(snapshot).message
    )
    (blobs / "1").unlink()
    assert "config.json can't be read: it is a symbolic link to ../../blobs/1" in refusal(snapshot).message


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {"model.safetensors.index.json": INDEX},
            "2 of its 2 weight files are missing, the first is model-00001-of-00002.safetensors",
        ),
        (
            {"model.safetensors.index.json": INDEX, **dict(list(SHARDS.items())[:1])},
            "1 of its 2 weight files are missing, the first is model-00002-of-00002.safetensors",
        ),
        (dict(list(SHARDS.items())[1:]), "only 1 of its 2 weight files (model-00002-of-00002.safetensors, …) are"),
        ({**SHARDS, "model.safetensors.index.json": b"{}"}, "index of its weight files (…safetensors.index.json) is"),
        ({**SHARDS, "model.safetensors.index.json": b'{"weight_map": {"a": [1]}}'}, "is damaged"),
        ({**SHARDS, "model.safetensors.index.json": b'{"weight_map": {"a": 1}}'}, "is damaged"),
        ({"model.safetensors": safetensors(a=(9,))[:-1]}, "122 bytes, but 123 by its header: it is incomplete"),
        ({"model.safetensors": safetensors(a=(9,)) + b"!"}, "it is incomplete"),
        ({"model.safetensors": safetensors(a=(9,))[:30]}, "the header of model.safetensors is damaged"),
        ({"model.safetensors": b""}, "model.safetensors is not a safetensors file, or is cut off"),
        ({"model.safetensors": struct.pack("<Q", folder.MAX_HEADER + 1) + b"{}"}, "is not a safetensors file"),
        ({"model.safetensors": b"version https://git-lfs.github.com/spec/v1\n"}, "is not a safetensors file"),
        ({"model.safetensors": struct.pack("<Q", 2) + b"[]"}, "the header of model.safetensors is damaged"),
        ({"model.safetensors": struct.pack("<Q", 30) + b'{"a": {"data_offsets": [4,2]}}'}, "is damaged"),
        ({"model.safetensors": struct.pack("<Q", 30) + b'{"a": {"data_offsets": [0,.5]}'}, "is damaged"),
        ({"model.safetensors": struct.pack("<Q", 100_000) + b"[" * 100_000}, "is damaged"),
    ],
)  # fmt: skip
def test_weights_that_are_not_whole_are_named(tmp_path: Path, files: dict[str, bytes], said: str) -> None:
    error = refusal(made(tmp_path / "x", {"config.json": CONFIG, **files}))
    assert said in error.message
    assert f"hf download ORG/NAME --local-dir {tmp_path / 'x'}" in str(error.hint)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "there is no config.json"),
        ({"adapter_config.json": b"{}", "adapter_model.safetensors": b"?"}, "it is a LoRA adapter"),
        ({"model-Q4_K_M.gguf": b"?"}, "only GGUF files"),
        ({"params.json": b"{}", "consolidated.safetensors": b"?"}, "only Mistral's own params.json"),
        ({"config.json": b""}, "config.json is not valid JSON, or is cut off"),
        ({"config.json": CONFIG[:-5]}, "config.json is not valid JSON, or is cut off"),
        ({"config.json": b"[1, 2]"}, "config.json is not a JSON object"),
        ({"config.json": b"[" * 100_000}, "config.json is not valid JSON, or is cut off"),
        ({"config.json": b'{"a": 1' + b"0" * 5000 + b"}"}, "config.json is not valid JSON, or is cut off"),
        ({"config.json": '{"a": "\N{LATIN SMALL LETTER U WITH DIAERESIS}"}'.encode("latin-1")}, "not UTF-8 text"),
        ({"config.json": CONFIG.decode().encode("utf-16")}, "not UTF-8 text"),
    ],
)  # fmt: skip
def test_a_config_that_can_not_be_read_says_why(tmp_path: Path, files: dict[str, bytes], said: str) -> None:
    assert said in refusal(made(tmp_path / "x", files)).message


def test_a_config_of_absurd_size_is_not_read(tmp_path: Path) -> None:
    path = made(tmp_path / "x", {})
    with (path / "config.json").open("wb") as file:
        file.truncate(folder.MAX_JSON + 1)
    assert "config.json is larger than 64 MiB" in refusal(path).message


def test_a_config_that_is_a_folder_is_an_error_in_the_systems_words(tmp_path: Path) -> None:
    path = made(tmp_path / "x" / "config.json", {}).parent
    assert "config.json can't be read: Is a directory" in refusal(path).message


def test_whatever_the_bytes_are_the_answer_is_a_model_or_an_error(tmp_path: Path) -> None:
    chance = random.Random(20261124)
    whole = {"config.json": CONFIG, "model.safetensors.index.json": INDEX, **SHARDS}
    outcomes = {"read": 0, "refused": 0}
    for _ in range(400):
        files = dict(whole)
        for name in chance.sample(sorted(files), chance.randint(1, 2)):
            files[name] = _corrupted(files[name], chance)
        try:
            found = read(made(tmp_path / "x", files))
        except ConfigError:
            outcomes["refused"] += 1
        else:
            assert isinstance(found, ModelFiles)
            outcomes["read"] += 1
    assert min(outcomes.values()) > 10, f"too much alike: {outcomes}"


def _corrupted(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    at = chance.randrange(min(len(changed), 120))  # most of it in the length and the header
    match chance.randrange(4):
        case 0:
            changed[at] = chance.randrange(256)
        case 1:
            del changed[at : at + chance.randrange(1, 9)]
        case 2:
            changed[at:at] = chance.randbytes(chance.randrange(1, 9))
        case _:
            del changed[at:]
    return bytes(changed)
