"""Runs on a host, in a short-lived container: downloads one revision of a model from the hub into the cache.

Its argument is a JSON object with model, revision, and the patterns of files to leave out. A download that was broken
off is continued. One JSON object a line tells how far it is. huggingface_hub is in every image with vLLM.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

SAY_S = 1.0
SAFE = ".safetensors"
# Other formats of the same weights, which vLLM leaves out too where there are safetensors (vllm 0.32,
# model_loader/default_loader.py).
OTHER_FORMATS = ("*.bin", "*.pt", "*.pth", "*.msgpack", "*.h5", "*.onnx", "*.ckpt.*", "original/*", "*.gguf")


def wanted(names: Iterable[str]) -> list[str]:
    """The files that a node needs."""
    names = list(names)
    if not any(name.endswith(SAFE) and "/" not in name for name in names):
        return names
    return [name for name in names if not any(fnmatch(name, pattern) for pattern in OTHER_FORMATS)]


def main(request: dict[str, Any]) -> int:
    """The exit code; the last line has commit, or error."""
    from huggingface_hub import HfApi, constants, snapshot_download  # type: ignore[import-not-found,unused-ignore]

    try:
        info = HfApi().model_info(request["model"], revision=request["revision"], files_metadata=True)
        sizes = {each.rfilename: each.size or 0 for each in info.siblings or ()}
        chosen = wanted(sizes)
        total = sum(sizes[name] for name in chosen)
        blobs = Path(constants.HF_HUB_CACHE) / f"models--{request['model'].replace('/', '--')}" / "blobs"
        ended = threading.Event()
        watcher = threading.Thread(target=_watch, args=(blobs, total, ended), daemon=True)
        watcher.start()
        snapshot_download(request["model"], revision=request["revision"], allow_patterns=chosen)
        ended.set()
        watcher.join()
    except Exception as error:
        say(error=f"{type(error).__name__}: {error}")
        return 1
    say(commit=info.sha, done=total, total=total)
    return 0


def _watch(blobs: Path, total: int, ended: threading.Event) -> None:
    while not ended.wait(SAY_S):
        done = 0
        for path in blobs.glob("*"):
            try:
                found = path.stat()
            except OSError:  # it has just got its name
                continue
            done += min(found.st_size, found.st_blocks * 512)  # a sparse file counts as what was written
        say(done=min(done, total), total=total)


def say(**words: object) -> None:
    """One line for the command."""
    print(json.dumps({**words, "at": time.time()}), flush=True)


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
