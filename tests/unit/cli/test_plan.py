"""`vllmray plan` and `up` with a model that does not fit, as typed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.unit.cli.test_cli import exit_code
from tests.unit.model.test_config import MODELS

DUMMY = ("--", "--load-format", "dummy")


def make_model(folder: Path, name: str) -> Path:
    """A folder with that configuration and no weights."""
    made = folder / name
    made.mkdir()
    shutil.copy(MODELS / f"{name}.json", made / "config.json")
    return made


def test_a_ranking_shows_what_fits_and_why_the_rest_does_not(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_model(folder, "llama-3.1-70b")
    assert exit_code("plan", str(path), "--gpus", "2x80GiB,2x80GiB", *DUMMY) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("llama-3.1-70b: 70.6 B parameters, at most 131072 tokens")
    assert lines[1] == "host 1 with 2 x 80 GiB, host 2 with 2 x 80 GiB"
    header = next(index for index, line in enumerate(lines) if line.startswith("TP  PP"))
    assert lines[header + 1].split()[:4] == ["2", "2", "4", "1"]
    assert (
        f"vllmray up --role head --model {path} --max-model-len 4096 --tensor-parallel-size 2 "
        "--pipeline-parallel-size 2 --cluster-gpus 2x80GiB,2x80GiB -- --load-format dummy"
    ) in lines
    rejected = lines[lines.index("rejected:") :]
    assert any(line.startswith("TP 4  PP 1  a stage of 4 GPUs would span hosts") for line in rejected)
    assert any("tensor_parallel_size 3 does not divide 64 attention heads" in line for line in rejected)


def test_the_same_as_json_in_a_versioned_envelope(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_model(folder, "llama-3.1-70b")
    assert exit_code("plan", str(path), "--gpus", "2x80GiB,2x80GiB", "--json", *DUMMY) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["schema"], said["command"]) == (1, "plan")
    best = said["data"]["layouts"][0]
    assert (best["tensor_parallel_size"], best["pipeline_parallel_size"], best["rejected"]) == (2, 2, None)
    assert said["data"]["parameters"] == 70_553_706_496
    assert [stage["layers"] for stage in best["stages"]] == [40, 40]
    assert all(layout["rejected"] for layout in said["data"]["layouts"][-2:])


def test_a_tower_whose_size_is_not_known_is_said_to_be_left_out(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code("plan", str(make_model(folder, "gemma-3-27b")), "--gpus", "80GiB", *DUMMY) == 0
    assert "encoder is not included" in capsys.readouterr().out


def test_a_model_that_fits_nowhere_is_exit_code_1(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_model(folder, "deepseek-v3")
    assert exit_code("plan", str(path), "--gpus", "24GiB", *DUMMY) == 1
    assert "no layout fits" in capsys.readouterr().out


def test_hosts_of_unequal_memory_get_a_partition_to_type(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_model(folder, "llama-3.1-70b")
    assert exit_code("plan", str(path), "--gpus", "80GiB,80GiB,24GiB", *DUMMY) == 0
    said = capsys.readouterr().out
    assert "--pipeline-parallel-size 3 --cluster-gpus 1x80GiB,1x80GiB,1x24GiB --env VLLM_PP_LAYER_PARTITION=" in said


@pytest.mark.parametrize("gpus", ["two", "0x80GiB", "2x", "2x80parsecs", "100x80GiB", "2x80"])
def test_gpus_that_are_none_are_a_setting_that_can_not_be_right(
    folder: Path, capsys: pytest.CaptureFixture[str], gpus: str
) -> None:
    assert exit_code("plan", str(make_model(folder, "gpt2")), "--gpus", gpus, *DUMMY) == 2
    said = capsys.readouterr().err
    assert "    --gpus: " in said
    assert "--cluster-gpus" not in said


def test_what_a_plan_prints_of_unlike_gpus_can_be_given_to_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(make_model(folder, "gpt2"))
    assert exit_code("plan", path, "--max-model-len", "1024", "--gpus", "2xH100+1x24GiB", *DUMMY) == 0
    listed = capsys.readouterr().out.splitlines()[1].removeprefix("host 1 with ")
    assert listed == "1 x 24 GiB and 2 x 80 GiB"
    assert exit_code("plan", path, "--max-model-len", "1024", "--gpus", listed, *DUMMY) == 0
    assert listed in capsys.readouterr().out


def test_a_model_that_can_not_be_one_is_named_as_it_was_typed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("plan", "./nowhere", "--gpus", "80GiB") == 2
    assert "    MODEL: a relative path" in capsys.readouterr().err


def test_a_folder_that_is_not_there_and_one_without_weights_are_said(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code("plan", "/no/such/folder", "--gpus", "80GiB") == 2
    assert "no folder /no/such/folder on this machine" in capsys.readouterr().err
    assert exit_code("plan", str(make_model(folder, "gpt2")), "--gpus", "80GiB") == 2
    assert "no weights" in capsys.readouterr().err


def test_up_with_sizes_that_the_model_can_not_have_ends_before_any_host_is_asked(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_model(folder, "smollm2-135m")
    argv = ("--host", "tcp://192.0.2.1:1", "--model", str(path), "--tensor-parallel-size", "2", *DUMMY)
    assert exit_code("up", "--role", "head", *argv) == 2
    said = capsys.readouterr().err
    assert "--tensor-parallel-size: tensor_parallel_size 2 does not divide 9 attention heads; use 1 or 3" in said
    assert "192.0.2.1" not in said


def test_a_dry_run_with_auto_shows_the_chosen_sizes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_model(folder, "llama-3.1-70b")
    auto = ("--tensor-parallel-size", "auto", "--pipeline-parallel-size", "auto")
    argv = (*auto, "--cluster-gpus", "2x80GiB,2x80GiB", "--dry-run=commands", "--host", "tcp://192.0.2.1:1")
    assert exit_code("up", "--role", "head", "--model", str(path), *argv, *DUMMY) == 0
    captured = capsys.readouterr()
    assert "--tensor-parallel-size=2 --pipeline-parallel-size=2" in captured.out
    assert "layout: tensor_parallel_size 2, pipeline_parallel_size 2: 70.6 B parameters" in captured.err


def test_the_configuration_that_is_named_apart_is_the_one_that_counts(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, other = make_model(folder, "gpt2"), make_model(folder, "llama-3.1-8b")
    argv = ("plan", str(path), "--gpus", "80GiB", "--max-model-len", "8k", *DUMMY)
    assert exit_code(*argv) == 1
    capsys.readouterr()
    assert exit_code(*argv, "--hf-config-path", other.name) == 0
    assert "at most 131072 tokens" in capsys.readouterr().out
    assert exit_code(*argv, "--hf-config-path", "/no/folder") == 2
    assert "no folder /no/folder on this machine" in capsys.readouterr().err
