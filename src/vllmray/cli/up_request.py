"""What a command line of `up` asks for, besides how it proceeds (cluster/run.py, UpOptions)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any


class RoleChoice(StrEnum):
    """--role"""

    head = "head"
    worker = "worker"


class DryRunChoice(StrEnum):
    """--dry-run; without a value, the summary."""

    summary = "summary"
    commands = "commands"


@dataclass(frozen=True, slots=True)
class UpRequest:
    """The options of one `up`."""

    flags: Mapping[str, Any]
    """Settings by field name."""
    env_file: Path | None = None
    host: str | None = None
    dry_run: DryRunChoice | None = None
    model_check: bool = True
    only: Sequence[str] = ()
    skip: Sequence[str] = ()
    prune: bool = False
    as_json: bool = False
