"""docs/security.md says nothing that no test holds."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
NAME = re.compile(r"\[(test_\w+)\]")


def statements(text: str) -> list[str]:
    """Items of lists and paragraphs below the second heading, whole; tables and examples belong to what follows."""
    body = text.partition("\n## Ray\n")[2]
    blocks = re.split(r"\n\s*\n|\n(?=- )", body)
    return [block for block in blocks if block.strip() and not block.strip("\n").startswith(("#", "|", "    "))]


def names_of_tests() -> set[str]:
    return {
        name
        for path in (REPOSITORY / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }


def test_every_statement_about_security_names_a_test_that_there_is() -> None:
    text = (REPOSITORY / "docs/security.md").read_text()
    known = names_of_tests()
    missing = sorted({name for name in NAME.findall(text) if name not in known})
    assert missing == []
    bare = [block for block in statements(text) if not NAME.search(block) and not block.rstrip().endswith(":")]
    assert bare == []


def test_nothing_is_passed_through_a_shell() -> None:
    shells = re.compile(r"shell=True|os\.system|os\.popen|getoutput|[\"'](?:/bin/)?(?:ba|da)?sh[\"'],")
    found = [
        f"{path.name}: {line.strip()}"
        for path in (REPOSITORY / "src").rglob("*.py")
        for line in path.read_text().splitlines()
        if shells.search(line)
    ]
    # A process that does nothing, by a text that never changes: what Ray's driver takes for the head's raylet.
    words = 'subprocess.Popen(argv, executable="/bin/sh", stdin=subprocess.PIPE, stdout=subprocess.PIPE)'
    assert found == [f"server.py: process = {words}"]
