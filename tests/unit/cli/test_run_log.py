"""The log file of a run: who leaves one, what is in it, and who may read it."""

from __future__ import annotations

import json
import logging
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.cli.test_again import node as _node  # noqa: F401  # a fixture
from tests.unit.cli.test_cli import exit_code
from vllmray.cli.run_log import KEPT, LOGGER, RunLog, newest
from vllmray.secrets.redact import REDACTED, redacted
from vllmray.secrets.store import RAY_TOKEN, SecretStore

NATIVE = ("--runtime", "native")


def one_log(state: Path) -> str:
    (path,) = newest(state)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    return path.read_text()


@pytest.mark.usefixtures("_node")
def test_a_command_that_acts_leaves_its_log_and_one_that_looks_leaves_none(state: Path) -> None:
    assert exit_code("events", *NATIVE) == 0
    assert exit_code("status", *NATIVE) == 1
    assert newest(state) == []
    assert exit_code("down", *NATIVE) == 0
    text = one_log(state)
    assert "vllmray down --runtime native" in text
    assert "vllmray-worker" in text


def test_an_internal_error_names_the_log_that_has_its_traceback_and_no_secret(
    nowhere: Path, state: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = ["planted-in-the-environment", "planted-in-the-store-of-secrets", "hf_0123456789abcdef"]
    monkeypatch.setenv("HF_TOKEN", secrets[0])
    SecretStore(state, "lab").keep(RAY_TOKEN, secrets[1])
    gone = nowhere / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()  # a current folder that is not there: no command expects that
    argv = ("up", "--role", "head", "--json", "-m", secrets[0])
    assert exit_code(*argv, "--", "--served-model-name", *secrets[1:]) == 70
    captured = capsys.readouterr()
    (path,) = newest(state)
    assert f"\nlog: {path}\n" in captured.err
    assert json.loads(captured.out)["error"]["log"] == str(path)
    text = one_log(state)
    assert "Traceback" in text
    assert REDACTED in text
    assert not [secret for secret in secrets if secret in text]


def test_other_errors_name_no_log(nowhere: Path, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("status", "--json", *NATIVE) == 4
    captured = capsys.readouterr()
    assert json.loads(captured.out)["error"]["log"] is None
    assert "log:" not in captured.err
    assert newest(state) == []


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    found = logging.getLogger(f"{LOGGER}.test")
    found.setLevel(logging.DEBUG)
    found.propagate = False
    yield found
    for handler in [*found.handlers]:
        found.removeHandler(handler)
        handler.close()


def test_the_newest_ten_are_kept_and_what_came_before_the_first_step_is_in_the_file(
    state: Path, logger: logging.Logger
) -> None:
    state.mkdir(mode=0o700)
    (state / "logs").mkdir(mode=0o700)
    for number in range(15):
        (state / "logs" / f"20200101T0000{number:02}Z-1-up.log").write_text("old")
    log = RunLog(state, ["up"], redacted)
    logger.addHandler(log)
    logger.debug("a note")
    assert len(newest(state)) == 15
    logger.info("a step")
    assert log.path is not None
    assert [line.split(" ", 1)[1] for line in log.path.read_text().splitlines()] == ["vllmray up", "a note", "a step"]
    assert len(newest(state)) == KEPT
    assert newest(state)[0] == log.path
    assert newest(state)[-1].name == "20200101T000006Z-1-up.log"


def test_where_the_folder_can_not_be_used_the_command_goes_on_without_a_log(
    state: Path, logger: logging.Logger
) -> None:
    state.write_text("no folder")
    log = RunLog(state, ["up"], redacted)
    logger.addHandler(log)
    logger.info("a step")
    assert log.path is None


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Authorization: Bearer abcdef123", False),
        ("key sk-0123456789abcdef", False),
        ("HF_TOKEN=abcdef123", False),
        ('"api_key": "abcdef123"', False),
        ("--api-key abcdef123", False),
        ("https://abcdef123:pass@host/x", False),
        ("max_tokens=512 and token_file=/a/abcdef123", True),
        ("4096 tokens: abcdef123", True),
    ],
)
def test_what_looks_like_a_secret_is_taken_away_and_nothing_else(text: str, kept: bool) -> None:
    assert (redacted(text) == text) is kept
    assert kept or "abcdef123" not in redacted(text)
    assert "abcdef123" not in redacted(text, ["abcdef123"])
