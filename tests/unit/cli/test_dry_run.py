"""The summary of `up --dry-run`."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.unit.cli.test_cli import exit_code

HEAD = ("up", "--role", "head", "--node-ip", "10.0.0.1", "--no-model-check", "--host", "ssh://gpu1")


def printed(capsys: pytest.CaptureFixture[str], *argv: str) -> list[str]:
    assert exit_code(*argv) == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.usefixtures("nowhere")
def test_a_dry_run_is_a_summary_of_about_ten_lines(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, *HEAD, "--dry-run", "-m", "some/model", "--cluster", "lab", "--gpus", "2")
    assert lines[0] == "dry run: nothing was started, nothing was written"
    assert [line.split()[0] for line in lines[1:]] == [
        *("cluster", "runtime", "containers", "node", "model", "layout", "endpoint", "secrets", "workers", "commands"),
    ]
    said = {line[:12].strip(): line[12:] for line in lines[1:]}
    assert said["cluster"] == "lab, head on ssh://gpu1"
    assert said["runtime"].startswith("docker, image vllm/vllm-openai:")
    assert said["containers"] == "vllmray-lab-head, vllmray-lab-engine"
    assert said["node"] == "10.0.0.1 on INTERFACE, 2 GPUs (nvidia)"
    assert said["model"] == "some/model, 4096 tokens"
    assert said["layout"] == "tensor_parallel_size 2, pipeline_parallel_size 2: 4 GPUs"
    assert said["endpoint"] == "http://10.0.0.1:8000/v1, API key"
    assert said["secrets"] == "to be generated: api_key, ray_token, scrape_token"
    assert said["workers"].startswith("vllmray up --role worker --head-ip 10.0.0.1")


def test_a_workers_summary_names_its_head(nowhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (nowhere / "token").write_text("t" * 32)
    (nowhere / "token").chmod(0o600)
    argv = ("up", "--role", "worker", "--head-ip", "10.0.0.1", "--node-ip", "10.0.0.2", "--runtime", "native")
    lines = printed(capsys, *argv, "--token-file", "token", "--dry-run")
    assert "head        10.0.0.1:6379" in lines
    assert "processes   vllmray-worker" in lines


@pytest.mark.usefixtures("nowhere")
def test_the_commands_are_what_it_names_and_any_other_value_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, *HEAD, "--dry-run=commands")
    words = shlex.split("\n".join(lines), comments=True)
    assert words.count("run") == 2
    assert {"vllmray-head", "vllmray-engine"} <= {word.removeprefix("--name=") for word in words}
    assert exit_code(*HEAD, "--dry-run=everything") == 2
    assert "'everything' is not one of 'summary', 'commands'" in capsys.readouterr().err
