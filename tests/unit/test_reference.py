"""docs/settings.md and docs/commands.md say what the code says; docs/demo.svg shows what a terminal showed."""

from __future__ import annotations

import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]


def program(name: str) -> Any:
    """One of scripts/ as a module, though it is none of a package."""
    loader = SourceFileLoader(name, str(REPOSITORY / "scripts" / name))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def reference() -> Any:
    """The program that writes them."""
    return program("reference")


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
    empty = [line for line in text.splitlines() if line.startswith(("| `", "| <code>")) and line.endswith("|  |")]
    assert empty == []


def test_a_page_without_marks_is_refused(reference: Any) -> None:
    with pytest.raises(ValueError, match="no marks of the block commands"):
        reference.with_blocks("commands.md", "# Commands\n")


def test_the_recording_shows_the_last_state_of_each_line_that_was_redrawn() -> None:
    screen = program("record").Screen()
    screen.write("\x1b[1mhead\x1b[0m: waiting\r\n", 0.0)
    screen.write("\r\x1b[1A\x1b[2Khead: ready\r\nnext\r\n", 9.0)
    assert screen.lines == ["head: ready", "next", ""]


def test_the_recording_cuts_long_waits_and_hides_no_line_for_ever() -> None:
    record = program("record")
    screen = record.Screen()
    for at, line in ((0.0, "first"), (0.5, "second"), (60.0, "third")):
        screen.write(f"{line}\r\n", at)
    assert record.times(screen)[:3] == [0.0, 0.5, 0.5 + record.PAUSE_S]
    drawn = record.picture(screen)
    assert all(word in drawn for word in ("first", "second", "third"))
    assert "opacity:0}" in drawn.partition("@keyframes appear")[2][:20]
    assert "backwards" in drawn
    assert "@font-face" not in drawn
