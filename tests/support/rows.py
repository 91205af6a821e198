"""Rows of the tables in docs/support.md, and the files in which each run leaves its own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "build/support"
SUMMARY = re.compile(r"^=*\s*(\d.*(?:passed|failed|error).*?) in [\d.]+s", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table of what is supported."""

    kind: str
    what: str
    result: Literal["passed", "failed", "not run"]
    detail: str


def keep(name: str, rows: Iterable[Row]) -> None:
    """Leave the rows of a run, by the name of its file."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


def kept(name: str) -> list[Row]:
    """The rows of the last such run; empty if there was none here."""
    path = FOLDER / f"{name}.json"
    return [Row(**row) for row in json.loads(path.read_text())] if path.exists() else []


def counts(output: str) -> str:
    """How many tests passed and failed, from what pytest printed; empty if it ran none."""
    return next(reversed(SUMMARY.findall(output)), "")
