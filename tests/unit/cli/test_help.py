"""Help on a terminal of 80 columns, the options that all commands have, completion."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.unit.cli.test_cli import exit_code
from vllmray.cli.app import COMMANDS, GROUPS, application
from vllmray.cli.options import ADVANCED, PANELS, option_fields, shown_default
from vllmray.config.settings import flag_of, variables_of
from vllmray.output.schemas import RESULTS
from vllmray.version import __version__

LINES, COLUMNS = 24, 80


def commands() -> Iterator[tuple[str, ...]]:
    """Each command as it is typed."""
    for name in COMMANDS:
        yield (name,)
        yield from ((name, member) for member in GROUPS.get(name, ("", ()))[1])


@pytest.fixture(autouse=True)
def terminal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the usual size."""
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    monkeypatch.setenv("LINES", str(LINES))
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", COLUMNS)


def shown(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert exit_code(*argv) == 0
    return capsys.readouterr().out


def parameters(*names: str) -> list[Any]:
    """The options and arguments of a command."""
    command: Any = typer.main.get_command(application(names))
    for name in names:
        command = command.commands[name]
    return list(command.params)


@pytest.mark.parametrize("argv", [(), ("--help",), ("-h",)])
def test_the_overview_fits_a_terminal(argv: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, *argv).splitlines()
    assert len(lines) < LINES
    assert max(map(len, lines)) <= COLUMNS
    for name in COMMANDS:
        (line,) = (line for line in lines if line[10:].startswith(f"{name} ") and line[:1] in " SOUM")
        assert line.endswith(".")


@pytest.mark.parametrize("argv", [*commands(), ("up", "--help-all")], ids=" ".join)
def test_nothing_is_cut_at_80_columns(argv: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    *names, option = argv if argv[-1] == "--help-all" else (*argv, "--help")
    text = shown(capsys, *names, option)
    assert max(map(len, text.splitlines())) <= COLUMNS
    assert "…" not in text
    words = set(re.split(r"[\s│,()]+", text))
    for parameter in parameters(*names):
        if not parameter.hidden or option == "--help-all":
            assert {*parameter.opts} - {parameter.name} <= words
            assert {*re.split(r"[\s,()]+", parameter.metavar or "")} <= words


def test_every_default_and_variable_of_up_is_shown_whole(capsys: pytest.CaptureFixture[str]) -> None:
    words = set(re.split(r"[\s│,()\[\]]+", shown(capsys, "up", "--help-all")))
    for name in (name for name in option_fields() if name != "ray_ports"):
        assert {flag_of(name), *variables_of(name), shown_default(name)} <= words, name


def test_the_options_of_up_are_in_panels_and_the_advanced_ones_only_with_help_all(
    capsys: pytest.CaptureFixture[str],
) -> None:
    brief, whole = shown(capsys, "up", "--help"), shown(capsys, "up", "--help-all")
    panels = re.compile(r"╭─ (\w+) ─")
    assert panels.findall(brief) == ["Options", "Model", "Placement", "Network", "Security"]
    assert panels.findall(whole) == ["Options", ADVANCED, "Model", "Placement", "Network", "Security"]
    for name in PANELS[ADVANCED]:
        assert f"{flag_of(name)} " in whole
        assert f"{flag_of(name)} " not in brief


def test_every_setting_with_an_option_is_in_one_panel() -> None:
    names = [name for names in PANELS.values() for name in names]
    assert sorted(names) == sorted(option_fields())


def test_the_version_is_told_in_three_ways(capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--version", "-V"):
        assert shown(capsys, option) == f"vllmray {__version__}\n"
        done = subprocess.run([sys.executable, "-m", "vllmray", option], capture_output=True, text=True, check=True)
        assert done.stdout == f"vllmray {__version__}\n"
    told = dict(line.split(" ", 1) for line in shown(capsys, "version").splitlines())
    assert told["vllmray"] == __version__
    assert told["python"] == sys.version.split()[0]
    assert re.fullmatch(r"[\d.]+", told["docker"])


def test_short_options_are_those_of_vllm(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ("up", "--role", "head", "--dry-run=commands", "--no-model-check", "--host", "tcp://192.0.2.1:1")
    text = shown(capsys, *argv, "-m", "some/model", "-tp", "4", "-pp", "1")
    for words in ("--model=some/model", "--tensor-parallel-size=4", "--pipeline-parallel-size=1"):
        assert words in text


@pytest.mark.parametrize("argv", [("--debug", "down"), ("down", "--debug")])
def test_debug_is_taken_before_and_after_the_command(
    argv: tuple[str, ...], nowhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(*argv, "--host", f"unix://{nowhere}/no.sock") == 3
    assert "Traceback" in capsys.readouterr().err


def completed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str) -> list[str]:
    """What a shell is told at the end of that line."""
    monkeypatch.setenv("_VLLMRAY_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
    assert exit_code() == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out.split()


def test_the_shell_completes_commands_options_and_the_names_of_clusters(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("lab", "lake", "other"):
        (state / "secrets" / name).mkdir(parents=True)
    assert completed(monkeypatch, capsys, "vllmray st") == ["status"]
    assert "--cluster" in completed(monkeypatch, capsys, "vllmray status --cl")
    assert completed(monkeypatch, capsys, "vllmray status --cluster la") == ["lab", "lake"]
    assert completed(monkeypatch, capsys, "vllmray up --cluster o") == ["other"]
    assert completed(monkeypatch, capsys, "vllmray key --cluster x") == []


def test_records_that_can_not_be_read_complete_nothing_and_say_nothing(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state.parent.mkdir(exist_ok=True)
    state.write_text("no folder")
    assert completed(monkeypatch, capsys, "vllmray status --cluster l") == []


def test_a_shells_completion_is_printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    assert "_VLLMRAY_COMPLETE" in shown(capsys, "--show-completion", "bash")


@pytest.mark.parametrize(
    "argv", [argv for argv in commands() if argv not in {(name,) for name in GROUPS}], ids=" ".join
)
def test_every_command_takes_json_and_debug_and_its_result_has_a_schema(argv: tuple[str, ...]) -> None:
    options = {option for parameter in parameters(*argv) for option in parameter.opts}
    assert {"--json", "--debug"} <= options
    assert " ".join(argv) in RESULTS
