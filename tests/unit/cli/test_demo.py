"""What the demo's command line says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.cli.test_cli import exit_code
from vllmray.cli.demo import _own_name, doubt_of


def test_what_to_type_next_is_the_command_as_it_can_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "vllmray"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert _own_name(str(program)) == str(program)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert _own_name(str(program)) == "vllmray"
    monkeypatch.chdir(tmp_path)
    assert _own_name("./vllmray") == "vllmray"


@pytest.mark.usefixtures("folder")
def test_the_demo_is_for_this_machine(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("demo", "--runtime", "podman") == 2
    assert exit_code("demo", "--port", "0") == 2
    assert exit_code("demo", "--runtime", "native", "--python", "relative/python") == 2
    assert "--python" in capsys.readouterr().err


@pytest.mark.usefixtures("folder")
def test_words_after_the_dashes_are_vllms_and_refused_where_vllmray_sets_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert exit_code("demo", "--runtime", "native", "--", "--port", "9") == 2
    assert "--port is set by vllmray itself" in capsys.readouterr().err


@pytest.mark.usefixtures("folder")
def test_files_that_such_words_name_are_read_and_looked_for_as_by_up(capsys: pytest.CaptureFixture[str]) -> None:
    Path("engine.yaml").write_text("uds: /tmp/socket\n")
    assert exit_code("demo", "--runtime", "native", "--", "--config", "engine.yaml") == 2
    assert "engine.yaml (-- --config): --uds replaces the endpoint's port with a Unix socket" in capsys.readouterr().err
    assert exit_code("demo", "--runtime", "native", "--", "--chat-template", "no.jinja") == 2
    assert "no.jinja is not on this machine" in capsys.readouterr().err


def test_an_answer_is_doubted_in_one_line_unless_it_is_the_expected_one() -> None:
    assert doubt_of("The capital of France is Paris.") is None
    said = doubt_of("L'Étoile, la Marseillaise, la femme au martyre")
    assert said is not None
    assert "Paris" in said
    assert "\n" not in said
