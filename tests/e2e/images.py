"""Small images of random files, and what a daemon keeps on its disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.rig.hosts import TestHost

MB = 10**6


@contextmanager
def small_image(host: TestHost, name: str, folder: Path, *sizes: int) -> Iterator[str]:
    """An image of one random file a layer, of those sizes in bytes; yields its id, and removes it at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["FROM scratch"]
    for number, size in enumerate(sizes):
        (folder / f"file{number}").write_bytes(os.urandom(size))
        lines.append(f"COPY file{number} /")
    (folder / "Dockerfile").write_text("\n".join(lines) + "\n")
    host.docker("build", "--quiet", "--tag", name, str(folder))
    yield image_id(host, name)
    host.docker("rmi", "--force", name, check=False)


def image_id(host: TestHost, name: str) -> str:
    """Empty where the host has no such image."""
    return host.docker("images", "--no-trunc", "--quiet", name).strip()


def on_disk(host: TestHost) -> dict[str, set[str]]:
    """What a daemon has of images: their ids, their layers, and files that it is still receiving."""
    layers = host.data / "image/overlay2/layerdb/sha256"
    return {
        "images": set(host.docker("images", "--all", "--no-trunc", "--quiet").split()),
        "layers": {path.name for path in layers.glob("*")},
        "received": {str(path.relative_to(host.data)) for path in (host.data / "tmp").rglob("*")},
    }
