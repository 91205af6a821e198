"""The program that an image is asked with, run here: what it finds of what is installed, and of libraries."""

from __future__ import annotations

import ctypes.util
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from vllmray.images.facts import ImageFacts
from vllmray.payload.probes import image as image_probe


def test_the_answer_has_the_shape_that_is_read() -> None:
    facts = ImageFacts(id="sha256:x", **image_probe.probe())
    assert facts.python.startswith("3.")
    assert facts.versions["ray"] is None
    assert facts.vllm is None


def test_a_distribution_that_is_not_installed_has_no_version() -> None:
    assert image_probe.version("no-such-distribution") is None
    assert image_probe.version("docker")


def test_ray_is_looked_for_as_a_module_of_this_python_and_not_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "ray"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    assert image_probe.ray_command() is None
    monkeypatch.syspath_prepend(tmp_path)
    scripts = tmp_path / "ray" / "scripts" / "scripts.py"
    scripts.parent.mkdir(parents=True)
    (tmp_path / "ray" / "__init__.py").write_text("raise RuntimeError('it must not be imported')")
    assert image_probe.ray_command() is None
    scripts.touch()
    assert image_probe.ray_command() == str(scripts)


def test_the_architecture_is_the_kernels_word() -> None:
    assert image_probe.probe()["machine"] == os.uname().machine


def test_cudas_version_is_read_from_torchs_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "torch"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('it must not be imported')")
    monkeypatch.syspath_prepend(tmp_path)
    for text, version in (
        ("cuda: Optional[str] = '13.0'\n", "13.0"),
        ("from typing import Optional\ncuda = '12.9'\n", "12.9"),
        ("cuda: Optional[str] = None\n", None),
    ):
        (package / "version.py").write_text(text)
        assert image_probe.cuda_version() == version
    (package / "version.py").unlink()
    assert image_probe.cuda_version() is None


def test_nccl_is_the_first_that_is_found_and_says_its_own_version(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler here to make a library with")
    library = tmp_path / "libnccl.so.2"
    source = tmp_path / "nccl.c"
    source.write_text("int ncclGetVersion(int *version) { *version = 22809; return 0; }\n")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    assert image_probe.nccl_library((f"{tmp_path}/none", str(tmp_path))) == str(library)
    assert image_probe.nccl_version(str(library)) == "2.28.9"
    assert image_probe.digest(str(library)) == hashlib.sha256(library.read_bytes()).hexdigest()


def test_a_library_that_is_none_has_no_version(tmp_path: Path) -> None:
    (tmp_path / "libnccl.so").write_text("not a library")
    assert image_probe.nccl_version(str(tmp_path / "libnccl.so")) is None
    assert image_probe.nccl_version(str(ctypes.util.find_library("c"))) is None
    assert image_probe.nccl_library((str(tmp_path / "empty"),)) is None
