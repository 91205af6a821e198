"""Wheels fetched by the real pip from a folder that stands for the index."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from vllmray.errors import HostError
from vllmray.hosts.pip_download import download


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only wheel of the only index that pip knows of."""
    index = tmp_path / "index"
    index.mkdir()
    made = index / "toy-1.0-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("toy.py", "")
        archive.writestr("toy-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
        archive.writestr("toy-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("toy-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return made


def no_progress(done: int, total: int) -> None:
    assert 0 <= done <= total


def test_a_wheel_with_the_known_hash_is_put_into_the_folder(wheel: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    download({"toy==1.0": digest}, tmp_path / "to", no_progress)
    assert (tmp_path / "to" / wheel.name).read_bytes() == wheel.read_bytes()


def test_another_wheel_of_that_name_is_refused(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(HostError, match="could not fetch toy") as caught:
        download({"toy==1.0": "0" * 64}, tmp_path / "to", no_progress)
    assert "HASH" in str(caught.value.details).upper()
    assert not list((tmp_path / "to").glob("*.whl"))


def test_a_wheel_that_is_not_there_is_an_error_with_pips_own_words(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(HostError) as caught:
        download({"other==1.0": "0" * 64}, tmp_path / "to", no_progress)
    assert "No matching distribution" in str(caught.value.details)
    assert "pip download --no-deps other==1.0" in str(caught.value.hint)
