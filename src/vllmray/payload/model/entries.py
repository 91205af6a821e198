"""The files of a folder that are sent to other hosts, as data; and how their contents are checked.

A folder is anything that nodes read: a repository in the hub's cache, a model's own folder, a compile cache.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

CHUNK = 4 * 1024**2
"""Bytes that are held at once."""


@dataclass(frozen=True)
class Entry:
    """A file, or a link."""

    path: str
    """Below the folder, with / between its parts."""
    size: int = 0
    digest: str = ""
    """ "sha256:HEX", or "git:HEX": the SHA-1 of a git blob, which the hub gives for small files; empty for a link."""
    link: str = ""
    """The text of a symbolic link; it leads to a place below the same folder."""


def checked(found: Any) -> Entry:
    """An entry that another program named.

    Raises:
        ValueError: its path, or where its link leads, is not below the folder.
    """
    entry = Entry(**found)
    parts = below(entry.path)
    if entry.link:
        target = os.path.normpath(parts.parent / entry.link)
        if os.path.isabs(entry.link) or "\0" in entry.link or target.startswith(".."):
            raise ValueError(f"a link out of the folder: {entry.path!r} leads to {entry.link!r}")
    elif entry.size < 0 or entry.digest.partition(":")[0] not in ("sha256", "git"):
        raise ValueError(f"no digest: {entry.path!r}")
    return entry


def below(path: str) -> PurePosixPath:
    """A path below a folder; raises ValueError for any other."""
    parts = PurePosixPath(path)
    if not path or parts.is_absolute() or ".." in parts.parts or "\0" in path:
        raise ValueError(f"not a path below the folder: {path!r}")
    return parts


class Digest:
    """The digest of a file that is read or written piece by piece.

    Args:
        kind: sha256 or git.
        size: of the whole file, which git's is made of too (git, Documentation/gitformat-loose: "blob SIZE", a zero).
    """

    def __init__(self, kind: str, size: int) -> None:
        self._kind = kind
        self._hash = hashlib.sha256() if kind == "sha256" else hashlib.sha1(usedforsecurity=False)
        if kind == "git":
            self._hash.update(b"blob %d\0" % size)

    def add(self, data: bytes | memoryview) -> None:
        """The next piece."""
        self._hash.update(data)

    def add_file(self, path: Path) -> None:
        """All that a file has."""
        with path.open("rb") as file:
            while data := file.read(CHUNK):
                self.add(data)

    @property
    def text(self) -> str:
        """As in an Entry."""
        return f"{self._kind}:{self._hash.hexdigest()}"


def digest_of(path: Path, kind: str) -> str:
    """The digest of a file's contents."""
    digest = Digest(kind, path.stat().st_size)
    digest.add_file(path)
    return digest.text
