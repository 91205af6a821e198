"""The commands events and restart, as they are typed, about a node that is a process of this machine."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.test_cli import exit_code
from vllmray.cli.events import seconds_of
from vllmray.config.settings import state_folder
from vllmray.errors import ConfigError
from vllmray.hosts.native.records import NodeSpec, Records
from vllmray.payload.journal import Entry, line_of

NATIVE = ("--runtime", "native")


@pytest.fixture
def node(nowhere: Path) -> Path:
    """The log of a worker that ended long ago; nothing of it runs."""
    records = Records(state_folder(), os.uname().nodename)
    draft = records.draft()
    fields: dict[str, Any] = {
        "id": "0" * 32,
        "name": "vllmray-worker",
        "image": sys.executable,
        "argv": ("true",),
        "env": {"PATH": os.environ["PATH"]},
        "labels": {
            "io.vllmray.cluster": "vllmray",
            "io.vllmray.role": "worker",
            "io.vllmray.config": json.dumps({"head_ip": "10.0.0.1", "node_ip": "10.0.0.2"}),
        },
        "limits": {},
        "restart": False,
        "init": True,
        "paths": {},
    }
    draft.write_spec(NodeSpec(**fields))
    draft.log.write_text(
        line_of(Entry(1_800_000_000.5, "node-started", "Ray is starting"))
        + "\nRay says\n"
        + line_of(Entry(1_800_000_009, "node-ended", "Ray\nended\x1b[2J"))
        + "\n"
    )
    folder = records.publish(draft, "vllmray-worker")
    assert folder is not None
    return folder.log


@pytest.mark.usefixtures("node")
def test_events_are_a_line_each_in_local_time_and_nothing_of_a_log_moves_the_cursor(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "UTC-2")
    time.tzset()
    try:
        assert exit_code("events", *NATIVE) == 0
    finally:
        monkeypatch.undo()
        time.tzset()
    assert capsys.readouterr().out.splitlines() == [
        "2027-01-15 10:00:00  vllmray-worker  node-started: Ray is starting",
        "2027-01-15 10:00:09  vllmray-worker  node-ended: Ray ended?[2J",
    ]


@pytest.mark.usefixtures("node")
def test_events_as_json_are_one_envelope(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("events", "--json", *NATIVE) == 0
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert (found["schema"], found["command"]) == (1, "events")
    assert set(found["data"]) == {"cluster", "host", "events"}
    assert found["data"]["events"][0] == {
        "at": 1_800_000_000.5,
        "where": "vllmray-worker",
        "kind": "node-started",
        "text": "Ray is starting",
    }
    assert exit_code("events", "--json", "--since", "0s", "--cluster", "vllmray", *NATIVE) == 0


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("90m", 5400), ("2h", 7200), ("1d12h", 129600), ("0s", 0), ("007m", 420)]
)
def test_a_length_of_time_is_a_number_with_its_unit(text: str, seconds: int) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "2 h", "-2h", "2w", "1.5h", "2h ago", "9999999999d"])
def test_anything_else_is_none(text: str) -> None:
    with pytest.raises(ConfigError, match="invalid duration"):
        seconds_of(text)


@pytest.mark.usefixtures("nowhere")
def test_a_wrong_length_of_time_is_a_usage_error_and_a_cluster_that_is_not_there_is_4() -> None:
    assert exit_code("events", "--since", "yesterday", *NATIVE) == 2
    assert exit_code("events", *NATIVE) == 4
    assert exit_code("restart", *NATIVE) == 4
    assert exit_code("restart", "boss", *NATIVE) == 2


def test_restart_starts_a_node_that_ended_and_says_what_to_look_at(
    node: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code("restart", "head", *NATIVE) == 4
    assert exit_code("restart", "--no-wait", *NATIVE) == 0
    assert capsys.readouterr().out == "restarted vllmray-worker; `vllmray status` shows when it is ready\n"
    assert json.loads((node.parent / "state.json").read_text())["started_at"]
