"""Small images of random files, and what a daemon keeps on its disk."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.rig.hosts import TestHost

MB = 10**6
CONTAINERD = "containerd/daemon/io.containerd.content.v1.content"
RECEIVING = ("tmp", f"{CONTAINERD}/ingest")
"""Where a daemon keeps what it has received of an image so far, below its data folder."""


@contextmanager
def small_image(host: TestHost, name: str, folder: Path, *sizes: int) -> Iterator[str]:
    """An image of one random file a layer, of those sizes in bytes; yields its contents, and removes it at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["FROM scratch"]
    for number, size in enumerate(sizes):
        (folder / f"file{number}").write_bytes(os.urandom(size))
        lines.append(f"COPY file{number} /")
    (folder / "Dockerfile").write_text("\n".join(lines) + "\n")
    host.docker("build", "--quiet", "--tag", name, str(folder))
    yield contents(host, name)
    host.docker("rmi", "--force", name, check=False)


def contents(host: TestHost, name: str) -> str:
    """What an image is made of, the same with any image store; empty where the host has no such image."""
    if not host.docker("images", "--quiet", name).strip():
        return ""
    (found,) = json.loads(host.docker("image", "inspect", name))
    config = {key: found["Config"].get(key) or None for key in ("Cmd", "Entrypoint", "Env", "User", "WorkingDir")}
    return json.dumps([found["Architecture"], found["RootFS"]["Layers"], config])


def on_disk(host: TestHost) -> dict[str, set[str]]:
    """What a daemon has of images: their ids, their layers, and files that it is still receiving."""
    stores = ("image/overlay2/layerdb/sha256", f"{CONTAINERD}/blobs/sha256")
    return {
        "images": set(host.docker("images", "--all", "--no-trunc", "--quiet").split()),
        "layers": {path.name for store in stores for path in (host.data / store).glob("*")},
        "received": {
            str(path.relative_to(host.data)) for place in RECEIVING for path in (host.data / place).rglob("*")
        },
    }
