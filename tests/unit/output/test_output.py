"""Results and progress as text."""

from __future__ import annotations

import json
import sys

import pytest
from rich.console import Console

from tests.unit.support import RecordingReporter, config, good_host, ray_node, seen
from vllmray.cluster.status import ClusterView, look
from vllmray.cluster.up import Options, Outcome, up_head
from vllmray.output.envelope import envelope, status_data
from vllmray.output.progress import LiveReporter, PlainReporter
from vllmray.output.tables import outcome_text, show_each
from vllmray.reporter import Step


def view() -> ClusterView:
    host = good_host(seen(ray_node("10.0.0.1", head=True), shortfall="1 of 2 GPUs", phase="waiting"))
    up_head(host, config(), Options(wait=False), RecordingReporter())
    host.programs["sh"] = host.programs["false"]
    return look(host, "vllmray")


def test_the_table_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    show_each([view(), view()])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12
    assert lines[0] == "cluster vllmray: not ready; waiting for GPUs: 1 of 2 GPUs"
    assert lines[2].split() == ["10.0.0.1", "head", "0", "1"]
    assert [line.split()[0] for line in lines[4:6]] == ["vllmray-head", "vllmray-engine"]


def test_the_envelope_is_one_versioned_line_with_every_key() -> None:
    line = envelope("status", status_data(view()))
    assert "\n" not in line
    found = json.loads(line)
    assert (found["schema"], found["command"]) == (1, "status")
    assert set(found["data"]) == {
        *(
            "cluster",
            "host",
            "role",
            "ready",
            "problem",
            "endpoint",
            "gpus",
            "nodes",
            "pending",
            "engine",
            "containers",
        ),
    }
    assert found["data"]["gpus"] == {"wanted": 2, "total": 1.0, "used": 0.0}
    assert found["data"]["engine"] == {"phase": "waiting", "detail": "", "since": 1.0}


def test_up_ends_with_the_endpoint_a_request_and_what_to_do_next() -> None:
    settled = config(node_ip="10.0.0.1", model="some/model", cluster="lab")
    text = outcome_text(Outcome("head", settled, "vllmray up --role worker", ready=True))
    assert "endpoint http://10.0.0.1:8000/v1" in text
    assert "curl http://10.0.0.1:8000/v1/chat/completions" in text
    assert '"model": "some/model"' in text
    assert "vllmray down --cluster lab" in text
    early = outcome_text(Outcome("head", settled, "THE COMMAND", ready=False))
    assert "THE COMMAND" in early


def _fail(step: Step) -> None:
    step.change("starting")
    raise ValueError("no")


def test_in_a_pipe_each_event_is_a_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = PlainReporter()
    with reporter.step("image x") as step:
        step.bound(90)
        step.part("aa", done=5, total=10, status="Downloading")
        step.part("aa", done=1, total=1, status="Pull complete")
        step.result("pulled")
    with pytest.raises(ValueError, match="no"), reporter.step("head") as step:
        _fail(step)
    assert capsys.readouterr().err.splitlines() == [
        "image x: waiting up to 1 min 30 s",
        "image x: aa pull complete",
        "image x: pulled (0 s)",
        "head: starting",
        "head: failed (0 s)",
    ]


def test_on_a_terminal_finished_steps_stay_and_notes_can_be_copied() -> None:
    console = Console(file=sys.stdout, force_terminal=True, width=60, record=True, no_color=True)
    reporter = LiveReporter(console)
    command = "vllmray up --role worker " + "--env LONG=value " * 10
    reporter.note(command)
    with reporter.step("2 GPUs in Ray") as step:
        step.bound(900)
        step.change("1 of 2 GPUs")
        step.event("10.0.0.2 joined")
        step.glimpse("Loading shards: 50 %")
        step.part("aa", done=5, total=10, status="Downloading")
        step.result("all there")
    text = console.export_text()
    assert command.strip() in text
    assert "ok 2 GPUs in Ray: all there" in text
    assert "    10.0.0.2 joined" in text
