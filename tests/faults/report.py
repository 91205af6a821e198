"""The table of docs/reliability.md, from the rows of a run."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.faults.row import Row

BEGIN, END = "<!-- rows of scripts/test --faults -->\n", "<!-- end of rows -->\n"
HEAD = (
    "| Fault | Client saw | Longest gap, s | Answers again after, s | `status` said | `events` said |\n"
    "|---|---|--:|--:|---|---|\n"
)


def table(rows: list[Row]) -> str:
    """In Markdown."""
    held = sum(not row.problems for row in rows)
    title = f"{time.strftime('%Y-%m-%d')}: {len(rows)} faults, {held} as they must be.\n\n"
    return title + HEAD + "".join(_line(row) for row in rows)


def _line(row: Row) -> str:
    healed = "never" if row.healed is None else "no outage" if row.healed == 0.0 else f"{row.healed:.0f}"
    if row.by_hand:
        healed += f", by `{row.by_hand}`: {row.why}"
    said = "; ".join(_cell(text) for text in row.status[:4]) or "ready"
    told = "; ".join(_cell(text) for text in row.events[:8]) or "nothing"
    wrong = f" **{_cell('; '.join(row.problems))}**" if row.problems else ""
    return f"| {_cell(row.name)}{wrong} | {row.errors} | {row.gap:.1f} | {healed} | {said} | {told} |\n"


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")[:160]


def write(rows: list[Row]) -> None:
    """The table so far into the file that VLLMRAY_FAULTS_TABLE names, if it names one: between its two marks."""
    if path := os.environ.get("VLLMRAY_FAULTS_TABLE"):
        text = Path(path).read_text() if Path(path).exists() else BEGIN + END
        before, _, rest = text.partition(BEGIN)
        Path(path).write_text(f"{before}{BEGIN}{table(rows)}{END}{rest.partition(END)[2]}")
