"""Images for another architecture, and images whose label is wrong about it."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import tarfile

import pytest

from tests.contract.conftest import Ground
from vllmray.cluster.probe.image import inspect
from vllmray.errors import HostError

NAME = "vllmray-contract-architecture:1"
NO_MACHINE = 0x18AD
"""EM_AVR32, of a kernel that Linux no longer is: no emulator is registered for it."""


def tarred(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def labelled(architecture: str) -> bytes:
    """As `docker save` gives it: an image whose programs are for no machine, labelled with that architecture."""
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, NO_MACHINE, 1, 0, 64, 0, 0, 64, 56, 0, 0, 0, 0)
    layer = tarred({"usr/bin/python3": header, "bin/sh": header})  # the shell is tried with what the kernel refuses
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Env": ["PATH=/usr/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"]}]
    return tarred(
        {
            "config.json": json.dumps(config).encode(),
            "layer.tar": layer,
            "manifest.json": json.dumps(manifest).encode(),
        }
    )


def refused(ground: Ground, architecture: str) -> HostError:
    """What is said when such an image is inspected."""
    if not (ground.is_real and ground.is_docker):
        pytest.skip("only Docker takes images")
    ground.host.load(iter([labelled(architecture)]))
    try:
        found = ground.host.image(NAME)
        assert found
        assert found.architecture == architecture
        with pytest.raises(HostError) as caught:
            inspect(ground.host, NAME, None)
    finally:
        ground.remove_image(NAME)
    assert ground.host.containers({"io.vllmray.cluster": ""}) == []
    return caught.value


def test_an_image_for_another_architecture_is_refused_with_both(ground: Ground) -> None:
    own = ground.host.info().architecture
    other = "arm64" if own == "amd64" else "amd64"
    error = refused(ground, other)
    assert error.message == f"{ground.host.address}: image {NAME} is for {other}, and this host is {own}"


def test_an_image_whose_label_is_wrong_about_its_architecture_is_explained(ground: Ground) -> None:
    error = refused(ground, ground.host.info().architecture)
    assert "exec format error" in str(error.details).lower()
    assert "for another architecture than this host's" in str(error.hint)
