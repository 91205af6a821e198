"""docs/settings.md and docs/commands.md say what the code says."""

from __future__ import annotations

from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def reference() -> Any:
    """The program that writes them, which is no module of a package."""
    loader = SourceFileLoader("reference", str(REPOSITORY / "scripts/reference"))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.mark.parametrize("file", ["settings.md", "commands.md"])
def test_the_reference_is_what_the_code_says(reference: Any, file: str) -> None:
    written = (REPOSITORY / "docs" / file).read_text()
    assert reference.with_blocks(file, written) == written, (
        f"docs/{file} is out of date: run .venv/bin/python scripts/reference"
    )


def test_every_command_and_each_of_its_options_is_described(reference: Any) -> None:
    from vllmray.cli.app import COMMANDS, GROUPS

    text = (REPOSITORY / "docs/commands.md").read_text()
    names = [f"{group} {each}" for group, (_, commands) in GROUPS.items() for each in commands]
    for name in [*(name for name in COMMANDS if name not in GROUPS), *names]:
        assert f"\n## vllmray {name}\n" in text
    empty = [line for line in text.splitlines() if line.startswith("| `") and line.endswith("|  |")]
    assert empty == []


def test_a_page_without_marks_is_refused(reference: Any) -> None:
    with pytest.raises(ValueError, match="no marks of the block commands"):
        reference.with_blocks("commands.md", "# Commands\n")
