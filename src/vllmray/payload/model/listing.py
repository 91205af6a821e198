"""Runs on a host, in a short-lived container: prints which files of a model are there, as one JSON object.

Its argument is a JSON object:
    cache, model, revision   a repository in the hub's cache below that folder; a revision is a branch or a commit
    folder                   or any folder, which is read whole
    mark                     leave a file of that name below the cache, and tell of all such files that are there
    unmark                   remove it again
    remove                   remove the repository, and print {"removed": BYTES}
    verify                   compute every file's digest, instead of taking the hub's from its name
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # in a container: the folder that holds vllmray's package
    sys.path[0] = str(Path(__file__).parents[3])

from vllmray.payload.model.entries import Entry, digest_of

COMMIT = re.compile(r"[0-9a-f]{40}")
HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
SHARD = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})(?P<end>\.\w+)")
"""One of several files of weights: model-00001-of-00004.safetensors; all are wanted, also where no index is yet."""
INDEX = re.compile(r".*\.(safetensors|bin)\.index\.json")
MARK = ".vllmray-mark-"
WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".pth")


def repository(cache: Path, model: str) -> Path:
    """Where the hub's cache has it (huggingface_hub 2.4, file_download.py, repo_folder_name)."""
    return cache / "hub" / f"models--{model.replace('/', '--')}"


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """What is there: the revision's commit, the entries, whether they are a whole model, what is wrong with files."""
    cache = Path(request.get("cache") or "/")
    verify = bool(request.get("verify"))
    if "folder" in request:
        root, commit = Path(request["folder"]), ""
        entries = list(_folder(root))
    else:
        root = repository(cache, request["model"])
        commit = _commit(root, request["revision"])
        entries = list(_snapshot(root, commit)) if commit else []
    wrong = [problem for entry in entries if (problem := _problem(root, entry, verify=verify))]
    existing = next(path for path in (root, *root.parents) if path.exists())
    return {
        "root": str(root),
        "commit": commit,
        "entries": [asdict(entry) for entry in entries],
        "whole": bool(entries) and not wrong and _is_whole(root, entries),
        "wrong": wrong,
        "free": shutil.disk_usage(existing).free,
        "marks": _marks(cache, request),
    }


def _marks(cache: Path, request: dict[str, Any]) -> list[str]:
    """Names of the marks in the cache: two hosts that see each other's have one folder (NFS)."""
    if request.get("mark"):
        (cache / f"{MARK}{request['mark']}").touch()
    found = sorted(path.name.removeprefix(MARK) for path in cache.glob(f"{MARK}*"))
    if request.get("unmark"):
        (cache / f"{MARK}{request['unmark']}").unlink(missing_ok=True)
    return found


def removed(request: dict[str, Any]) -> dict[str, int]:
    """Remove a repository; the bytes that its files had."""
    root = repository(Path(request["cache"]), request["model"])
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    if root.exists():
        shutil.rmtree(root)
    return {"removed": size}


def _commit(root: Path, revision: str) -> str:
    if COMMIT.fullmatch(revision):
        return revision
    try:
        return (root / "refs" / revision).read_text().strip()
    except OSError:
        return ""


def _snapshot(root: Path, commit: str) -> Iterator[Entry]:
    """The links of a snapshot, and the blobs that they lead to."""
    snapshot = root / "snapshots" / commit
    for path in sorted(snapshot.rglob("*")):
        if not path.is_symlink():
            continue
        link = os.readlink(path)
        blob = Path(os.path.normpath(path.parent / link))
        if blob.parent == root / "blobs":
            yield Entry(str(path.relative_to(root)), link=link)
            if blob.is_file():
                yield Entry(f"blobs/{blob.name}", blob.stat().st_size, _digest(blob))


def _digest(blob: Path) -> str:
    """The hub's digest, which a blob is named by: SHA-256 of a large file, a git blob's SHA-1 of a small one.

    A mirror may name them by something else: then it is computed.
    """
    if HASH.fullmatch(blob.name):
        return f"{'sha256' if len(blob.name) == 64 else 'git'}:{blob.name}"
    return digest_of(blob, "sha256")


def _folder(root: Path) -> Iterator[Entry]:
    """Every file below a folder; what links lead to is sent in their place, if it is a file."""
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.name.endswith(".incomplete"):
            yield Entry(str(path.relative_to(root)), path.stat().st_size, digest_of(path, "sha256"))


def _problem(root: Path, entry: Entry, *, verify: bool) -> str:
    """Why a file is not what it should be; empty when it is."""
    if entry.link:
        return "" if (root / entry.path).exists() else f"{entry.path}: what it leads to is missing"
    if verify and digest_of(root / entry.path, entry.digest.partition(":")[0]) != entry.digest:
        return f"{entry.path}: its contents have changed"
    return ""


def _is_whole(root: Path, entries: list[Entry]) -> bool:
    """It has a configuration and weights, and every shard that an index names."""
    names = {Path(entry.path).name: entry for entry in entries if entry.link or not entry.path.startswith("blobs/")}
    wanted: set[str] = set()
    for name, entry in names.items():
        if INDEX.fullmatch(name):
            try:
                wanted |= set(json.loads((root / entry.path).read_text()).get("weight_map", {}).values())
            except (OSError, ValueError, AttributeError):
                return False
    for name in names:
        if match := SHARD.fullmatch(name):
            count = int(match["count"])
            wanted |= {f"{match['stem']}-{number:05d}-of-{count:05d}{match['end']}" for number in range(1, count + 1)}
    return "config.json" in names and wanted <= names.keys() and any(name.endswith(WEIGHTS) for name in names)


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    print(json.dumps(removed(asked) if asked.get("remove") else answer(asked)))
