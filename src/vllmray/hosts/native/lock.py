"""A lock of this machine's user: flock(2) on a file, which the kernel releases when its holder ends.

The file is removed by its holder, and by who breaks the lock, so a lock counts only while the file is at its path: a
lock on a removed file excludes nobody.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from contextlib import suppress

from vllmray.errors import HeldError
from vllmray.secure_files import PrivateFolder

LARGEST = 10_000
"""Bytes of labels that are read; more were not written by us."""


class NativeLock:
    """A Lock. Programs that are started meanwhile don't have it: the descriptor is closed in them (O_CLOEXEC)."""

    def __init__(self, folder: PrivateFolder, name: str, descriptor: int) -> None:
        self._folder = folder
        self._name = name
        self._descriptor = descriptor

    def close(self) -> None:
        if self._descriptor >= 0:
            if self._folder.has(self._name, self._descriptor):
                self._folder.remove(self._name)
            os.close(self._descriptor)
            self._descriptor = -1


def take(folder: PrivateFolder, name: str, labels: Mapping[str, str]) -> NativeLock:
    """The lock of that name.

    Raises:
        HeldError: another command holds it.
        ConfigError: the folder is not this user's alone.
        OSError: it can't be written.
    """
    while True:
        descriptor = folder.open(name)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if folder.has(name, descriptor):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps(dict(labels)).encode(), 0)
                return NativeLock(folder, name, descriptor)
        except BlockingIOError:
            said = _labels(descriptor)
            os.close(descriptor)
            raise HeldError(f"lock {folder.path / name} is held by another command", labels=said) from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _labels(descriptor: int) -> dict[str, str]:
    """What the holder wrote; empty while it has not yet."""
    with suppress(ValueError):
        said = json.loads(os.pread(descriptor, LARGEST, 0))
        if isinstance(said, dict):
            return {str(key): str(value) for key, value in said.items()}
    return {}
