"""The table of the document keeps what a later run of a few faults did not try."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.faults import CATALOGUE
from tests.faults.report import BEGIN, END, HEAD, write
from tests.faults.row import Row


def test_rows_of_later_runs_replace_their_own_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = tmp_path / "document.md"
    document.write_text(f"before\n{BEGIN}{END}after\n")
    monkeypatch.setenv("VLLMRAY_FAULTS_TABLE", str(document))
    first, second = (fault.name for fault in CATALOGUE[:2])
    write([Row(second, healed=81.0), Row("no such fault", healed=1.0)])
    write([Row(first, healed=None, problems=["not healed | at all"])])
    before, _, title, _, head, rule, one, two, _, after = document.read_text().splitlines()
    assert (before, after) == ("before", "after")
    assert title == f"{len(CATALOGUE)} faults, 2 tried, 1 as they must be."
    assert f"{head}\n{rule}\n" == HEAD
    assert one.startswith(f"| {first} **not healed / at all** | ")
    assert " | never | " in one
    assert two.startswith(f"| {second} | ")
    assert " | 81 | " in two
    write([Row(first, healed=3.0)])
    assert "2 tried, 2 as they must be." in document.read_text()
    assert document.read_text().count(first) == 1
