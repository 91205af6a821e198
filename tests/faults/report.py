"""The table of docs/reliability.md: a row for each fault of the catalogue, of the latest run that tried it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.faults.faults import CATALOGUE
from tests.faults.row import Row

BEGIN, END = "<!-- rows of scripts/test --faults -->\n", "<!-- end of rows -->\n"
HEAD = (
    "| Fault | Tried | Client saw | Longest gap, s | Answers again after, s | `status` said | `events` said |\n"
    "|---|---|---|--:|--:|---|---|\n"
)
WRONG = "**"


def table(lines: dict[str, str]) -> str:
    """In Markdown, from its lines by fault; in the catalogue's order, without faults that are not in it."""
    chosen = [lines[fault.name] for fault in CATALOGUE if fault.name in lines]
    held = sum(WRONG not in line for line in chosen)
    return f"{len(CATALOGUE)} faults, {len(chosen)} tried, {held} as they must be.\n\n{HEAD}{''.join(chosen)}"


def line_of(row: Row) -> str:
    """Of the table, with today's date."""
    healed = "never" if row.healed is None else "no outage" if row.healed == 0.0 else f"{row.healed:.0f}"
    if row.by_hand:
        healed += f", by `{row.by_hand}`: {row.why}"
    said = "; ".join(_cell(text) for text in row.status[:4]) or "ready"
    told = "; ".join(_cell(text) for text in row.events[:8]) or "nothing"
    wrong = f" {WRONG}{_cell('; '.join(row.problems))}{WRONG}" if row.problems else ""
    name, tried = _cell(row.name), time.strftime("%Y-%m-%d")
    return f"| {name}{wrong} | {tried} | {row.errors} | {row.gap:.1f} | {healed} | {said} | {told} |\n"


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")[:160]


def write(rows: list[Row]) -> None:
    """The rows so far into the file that VLLMRAY_FAULTS_TABLE names, if it names one, between its two marks."""
    if path := os.environ.get("VLLMRAY_FAULTS_TABLE"):
        text = Path(path).read_text() if Path(path).exists() else BEGIN + END
        before, _, rest = text.partition(BEGIN)
        old, _, after = rest.partition(END)
        lines = {_fault(line): line for line in old.splitlines(keepends=True) if line.startswith("| ")}
        lines |= {row.name: line_of(row) for row in rows}
        Path(path).write_text(f"{before}{BEGIN}{table(lines)}{END}{after}")


def _fault(line: str) -> str:
    return line.partition(" | ")[0].removeprefix("| ").partition(f" {WRONG}")[0]
