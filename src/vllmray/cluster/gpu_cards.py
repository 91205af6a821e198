"""The GPUs of a host as hosts/gpu_probe.py tells of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

T = TypeVar("T")
UNIFIED_RESERVE = 8 * 1024**3
"""Of memory that GPU and host share, what is left to the host: its system, Ray, and vLLM's processes there."""


class Card(BaseModel):
    """One GPU that a node was given, or a MIG device; bytes."""

    model_config = ConfigDict(frozen=True)

    id: str
    """As nvidia-smi numbers it there."""
    uuid: str
    name: str
    total: int
    """What CUDA tells a program."""
    free: int
    unified: bool = False
    """It has no memory of its own: total and free are the host's."""

    @property
    def size(self) -> int:
        """What an engine can count on."""
        return self.total - UNIFIED_RESERVE if self.unified else self.total


class Holder(BaseModel):
    """A process with memory on a GPU."""

    model_config = ConfigDict(frozen=True)

    gpu: str
    """The GPU's UUID."""
    pid: int
    user: str
    """Empty when it is not known; so is program."""
    program: str
    memory: int | None


_CARDS = TypeAdapter(tuple[Card, ...])
_HOLDERS = TypeAdapter(tuple[Holder, ...])
_FILES = TypeAdapter(tuple[str, ...])


def cards_in(lines: Sequence[str]) -> tuple[Card, ...]:
    """Those of a probe's answer; empty where it has none."""
    return _of(lines, "cards", _CARDS)


def holders_in(lines: Sequence[str]) -> tuple[Holder, ...]:
    """The processes of a probe's answer; empty where it has none."""
    return _of(lines, "holders", _HOLDERS)


def files_in(lines: Sequence[str]) -> tuple[str, ...]:
    """The files of GPUs in a probe's answer, as gpus.device_access takes them; empty where it has none."""
    return _of(lines, "files", _FILES)


def _of(lines: Sequence[str], name: str, shape: TypeAdapter[tuple[T, ...]]) -> tuple[T, ...]:
    try:
        return shape.validate_python(json.loads(lines[-1])[name])
    except (IndexError, KeyError, TypeError, ValueError, ValidationError):
        return ()
