"""Paths inside a container -> paths of this machine; pure.

A container's own paths (/tmp/ray, /vllmray/secrets) mean something else in each container. A process has no such
view, so wherever its command line or environment names a path that would be a mount or a file of the container, the
path that stands for it on this machine is put in its place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True, slots=True)
class PathMap:
    """Absolute paths of a container, each with the path on this machine that stands for it."""

    paths: Mapping[str, str]

    def text(self, text: str) -> str:
        """The text with every such path in it replaced, also where it is only the beginning of a longer path."""
        if not self.paths:
            return text
        longest_first = sorted(self.paths, key=len, reverse=True)
        either = "|".join(re.escape(path) for path in longest_first)
        return re.sub(rf"(?<![\w./-])(?:{either})(?![\w.-])", lambda match: self.paths[match[0]], text)

    def argv(self, argv: Iterable[str]) -> tuple[str, ...]:
        return tuple(self.text(arg) for arg in argv)

    def env(self, env: Mapping[str, str]) -> dict[str, str]:
        return {name: self.text(value) for name, value in env.items()}


def folders_of(path: str) -> list[str]:
    """The folders that a path lies in, from the outermost but without the root."""
    return [str(parent) for parent in reversed(PurePosixPath(path).parents)][1:]
