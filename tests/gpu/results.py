"""What was measured: rows that outlast a run, and the document that is made of them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

HEAD = "| row | what | measured | as it must be | run |\n|---|---|---|---|---|\n"


@dataclass(slots=True)
class Row:
    """One line of the table."""

    number: str
    """Its place: rows are in the order of these, "4 dense" after "3"."""
    what: str
    seen: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Empty for a row that passed."""
    run: str = ""

    def saw(self, text: str) -> None:
        """Something measured."""
        self.seen.append(text)

    def must(self, condition: object, text: str) -> bool:
        """Something that has to be so; the text says what is wrong when it is not."""
        if not condition:
            self.wrong.append(text)
        return bool(condition)

    @property
    def line(self) -> str:
        verdict = "yes" if not self.wrong else "NO: " + "; ".join(self.wrong)
        cells = (self.number, self.what, "; ".join(self.seen), verdict, self.run)
        return "| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |\n"


def merge(path: Path, rows: list[Row], run: dict[str, str]) -> tuple[list[Row], list[dict[str, str]]]:
    """These rows in place of older ones of the same number, in the file; returns all, and the runs they come from."""
    old = json.loads(path.read_text()) if path.exists() else {"rows": [], "runs": []}
    for row in rows:
        row.run = run["name"]
    kept = {row["number"]: Row(**row) for row in old["rows"]} | {row.number: row for row in rows}
    all_rows = [kept[number] for number in sorted(kept)]
    wanted = {row.run for row in all_rows}
    runs = [each for each in old["runs"] if each["name"] in wanted and each["name"] != run["name"]]
    runs += [run] if run["name"] in wanted else []
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"runs": runs, "rows": [asdict(row) for row in all_rows]}, indent=1) + "\n")
    return all_rows, runs


def table(rows: list[Row]) -> str:
    """In Markdown."""
    return HEAD + "".join(row.line for row in rows)


def described(runs: list[dict[str, str]]) -> str:
    """The runs, a paragraph each: when, on what, by which command."""
    lines = []
    for run in runs:
        facts = ", ".join(f"{name} {value}" for name, value in run.items() if name not in ("name", "command", "when"))
        lines.append(f"- **{run['name']}**, {run['when']}: {facts}. Made by\n\n      {run['command']}\n")
    return "\n".join(lines)


BEGIN, END = "<!-- made by scripts/gpu-acceptance -->\n", "<!-- end of it -->\n"


def write(document: Path, rows: list[Row], runs: list[dict[str, str]]) -> None:
    """Both into the document, between its marks; what is around them is kept."""
    text = document.read_text() if document.exists() else f"# On real GPUs\n\n{BEGIN}{END}"
    before, _, rest = text.partition(BEGIN)
    document.write_text(f"{before}{BEGIN}{table(rows)}\n{described(runs)}{END}{rest.partition(END)[2]}")
