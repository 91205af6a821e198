"""docs/reliability.md's table, from the rows of a run."""

from __future__ import annotations

import os
from pathlib import Path

from tests.faults.row import Row

BEGIN, END = "<!-- rows of scripts/test --faults -->\n", "<!-- end of rows -->\n"
HEAD = (
    "| Fault | Client saw | Longest gap, s | Answers again after, s | `status` said | `events` said |\n"
    "|---|---|--:|--:|---|---|\n"
)


def table(rows: list[Row]) -> str:
    """In Markdown."""
    return HEAD + "".join(_line(row) for row in rows)


def _line(row: Row) -> str:
    healed = "never" if row.healed is None else "no outage" if row.healed == 0.0 else f"{row.healed:.0f}"
    healed += f", by `{row.by_hand}`" if row.by_hand else ""
    said = "; ".join(_cell(text) for text in row.status[:4]) or "ready"
    told = "; ".join(_cell(text) for text in row.events[:8]) or "nothing"
    return f"| {_cell(row.name)} | {row.errors} | {row.gap:.1f} | {healed} | {said} | {told} |\n"


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")[:160]


def write(rows: list[Row]) -> None:
    """The table so far into the file that VLLMRAY_FAULTS_TABLE names, if it names one."""
    if path := os.environ.get("VLLMRAY_FAULTS_TABLE"):
        Path(path).write_text(table(rows))
