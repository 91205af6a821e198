"""`vllmray plan` as a process: this machine's GPUs as nvidia-smi tells them, and models from a hub that may fail."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.rig.hub import serving
from tests.rig.image import VLLMRAY
from tests.unit.cli.test_plan import make_model
from tests.unit.spark import NVIDIA_SMI

DUMMY = ("--", "--load-format", "dummy")


def plan(folder: Path, *argv: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command with nothing of this machine's settings, and programs of the folder's bin before others."""
    environment = {"PATH": f"{folder}/bin:{os.environ['PATH']}", "HOME": str(folder), "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        [str(VLLMRAY), "plan", *argv],
        cwd=folder,
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def say(folder: Path, text: str, code: int = 0) -> None:
    """An nvidia-smi that prints this."""
    program = folder / "bin/nvidia-smi"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\nprintf '{text}'\nexit {code}\n")
    program.chmod(0o755)


def test_without_options_this_machines_gpus_are_looked_at_and_nothing_is_left(tmp_path: Path) -> None:
    cards = (f"{each}, GPU-{each}, NVIDIA H100 80GB HBM3, 81559, 0, 81559, Disabled" for each in range(2))
    say(tmp_path, "".join(f"{card}\\n" for card in cards))
    path = make_model(tmp_path, "llama-3.1-70b")
    done = plan(tmp_path, str(path), *DUMMY)
    assert done.returncode == 0, done.stderr
    assert "with 2 x 80 GiB" in done.stdout
    assert "2 1 2 1 65.7 3.3 " in " ".join(done.stdout.split())
    assert not (tmp_path / "models").exists()


def test_a_gpu_that_shares_this_machines_memory_leaves_it_a_part(tmp_path: Path) -> None:
    """As on a DGX Spark, with the memory of the machine that runs this."""
    say(tmp_path, NVIDIA_SMI.strip() + "\\n")
    done = plan(tmp_path, str(make_model(tmp_path, "gpt2")), "--max-model-len", "1k", *DUMMY)
    share = re.search(r"unified memory: .* the engine takes .*\(--gpu-memory-utilization ([\d.]+)\)", done.stderr)
    assert share, done.stderr
    if 0.1 <= float(share[1]) < 0.92:
        assert f" --gpu-memory-utilization={share[1]}\n" in done.stdout


@pytest.mark.parametrize(("said", "code"), [("", 0), ("Failed to initialize NVML\\n", 9)])
def test_a_machine_whose_gpus_say_nothing_says_how_to_state_them(tmp_path: Path, said: str, code: int) -> None:
    say(tmp_path, said, code)
    done = plan(tmp_path, str(make_model(tmp_path, "gpt2")), *DUMMY)
    assert done.returncode == 3
    assert "no nvidia GPU whose memory could be read" in done.stderr
    assert "--gpus 2x80GiB,2x80GiB" in done.stderr


def test_a_hub_that_can_not_be_reached_and_a_typo_are_errors_of_their_own(tmp_path: Path) -> None:
    gpus = ("--gpus", "80GiB")
    nowhere = plan(tmp_path, "org/name", *gpus, HF_ENDPOINT="http://127.0.0.1:1")
    assert nowhere.returncode == 2
    assert "--no-model-check" in nowhere.stderr
    with serving() as hub:
        typo = plan(tmp_path, "org/nmae", *gpus, HF_ENDPOINT=hub.url)
    assert typo.returncode == 2
    assert "org/nmae" in typo.stderr
    assert typo.stderr != nowhere.stderr
    assert "Traceback" not in nowhere.stderr + typo.stderr
