"""The GPUs of a host as payload/probes/gpus.py reports them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from vllmray.payload.protocol import Card, GpuProcess

T = TypeVar("T")


_CARDS = TypeAdapter(tuple[Card, ...])
_HOLDERS = TypeAdapter(tuple[GpuProcess, ...])
_FILES = TypeAdapter(tuple[str, ...])


def cards_in(lines: Sequence[str]) -> tuple[Card, ...]:
    """The GPUs in a probe's answer; empty where it has none."""
    return _of(lines, "cards", _CARDS)


def holders_in(lines: Sequence[str]) -> tuple[GpuProcess, ...]:
    """The processes in a probe's answer; empty where it has none."""
    return _of(lines, "holders", _HOLDERS)


def files_in(lines: Sequence[str]) -> tuple[str, ...]:
    """The GPU device files in a probe's answer, as gpus.device_access takes them; empty where it has none."""
    return _of(lines, "files", _FILES)


def _of(lines: Sequence[str], name: str, shape: TypeAdapter[tuple[T, ...]]) -> tuple[T, ...]:
    try:
        return shape.validate_python(json.loads(lines[-1])[name])
    except (IndexError, KeyError, TypeError, ValueError, ValidationError):
        return ()
