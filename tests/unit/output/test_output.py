"""Results and progress as text."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.unit.support import RecordingReporter, config, good_host, ray_node, resolved, seen
from vllmray.cluster.observe.gpu_memory import GpuMemory
from vllmray.cluster.observe.status import ClusterView, look
from vllmray.cluster.run import Outcome, UpOptions
from vllmray.cluster.up import up_head
from vllmray.output.envelope import envelope, status_data
from vllmray.output.live import LiveReporter
from vllmray.output.progress import PlainReporter
from vllmray.output.tables import Access, curl_line, outcome_text, show_each
from vllmray.reporter import Step


def view() -> ClusterView:
    host = good_host(seen(ray_node("10.0.0.1", head=True), shortfall="1 of 2 GPUs", phase="waiting"))
    up_head(host, config(), UpOptions(wait=False), RecordingReporter())
    host.programs["cat"] = host.programs["false"]
    return look(host, "vllmray")


def test_the_table_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    show_each([view(), view()])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12
    since = datetime.fromtimestamp(1.0, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    assert lines[0] == f"cluster vllmray: not ready; waiting for GPUs: 1 of 2 GPUs, since {since}"
    assert lines[2].split() == ["10.0.0.1", "head", "0", "1"]
    assert [line.split()[0] for line in lines[4:6]] == ["vllmray-head", "vllmray-engine"]


def test_gpus_whose_memory_is_known_have_a_table_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    gib = 1024**3
    gpus = (GpuMemory(0, "NVIDIA H200", 70 * gib, 140 * gib), GpuMemory(1, "NVIDIA H200", 0, 140 * gib))
    show_each([replace(view(), gpus=gpus)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[3:6]] == [
        ["GPU", "here", "memory", "used", "memory"],
        ["0,", "NVIDIA", "H200", "70.0", "GiB", "140.0", "GiB"],
        ["1,", "NVIDIA", "H200", "0.0", "GiB", "140.0", "GiB"],
    ]
    assert asdict(status_data(replace(view(), gpus=gpus[:1])))["gpu_memory"] == [
        {"index": 0, "name": "NVIDIA H200", "used": 70 * gib, "total": 140 * gib}
    ]


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
            "since",
            "endpoint",
            "gpus",
            "gpu_memory",
            "nodes",
            "pending",
            "engine",
            "containers",
            "hosts",
        ),
    }
    assert found["data"]["gpus"] == {"wanted": 2, "total": 1.0, "used": 0.0}
    assert found["data"]["engine"] == {
        "phase": "waiting",
        "detail": "",
        "since": 1.0,
        "deaths": 0,
        "missing_since": None,
    }


def access(**fields: Any) -> Access:
    usual: dict[str, Any] = {
        "url": "http://10.0.0.1:8000/v1",
        "header_file": Path("/state/my key.header"),
        "certificate_file": None,
    }
    return Access(**(usual | fields))


def test_up_ends_with_the_endpoint_a_request_and_what_to_do_next() -> None:
    settled = config(node_ip="10.0.0.1", model="some/model", cluster="lab")
    text = outcome_text(Outcome("head", resolved(settled), "vllmray up --role worker", ready=True), access())
    assert "endpoint http://10.0.0.1:8000/v1" in text
    assert "curl http://10.0.0.1:8000/v1/chat/completions" in text
    assert '"model": "some/model"' in text
    assert "vllmray down --cluster lab" in text


def test_a_head_that_is_still_starting_tells_how_the_others_join() -> None:
    settled = config(node_ip="10.0.0.1", cluster="lab")
    early = outcome_text(
        Outcome("head", resolved(settled), "THE COMMAND", ready=False), access(url="https://gpu1:8000/v1")
    )
    assert "the endpoint will be https://gpu1:8000/v1" in early
    assert "THE COMMAND" in early
    assert "vllmray token --cluster lab | ssh HOST 'umask 077; cat > vllmray.token'" in early


def test_a_workers_end_names_no_endpoint() -> None:
    settled = config(node_ip="10.0.0.2", head_ip="10.0.0.1")
    assert outcome_text(Outcome("worker", resolved(settled), "", ready=True), None) == (
        "node 10.0.0.2 joined the cluster of 10.0.0.1\n\nvllmray status\nvllmray logs -f\nvllmray down"
    )
    assert "will join" in outcome_text(Outcome("worker", resolved(settled), "", ready=False), None)


@pytest.mark.parametrize(
    ("reach", "options"),
    [
        (access(), ["-H", "@/state/my key.header"]),
        (access(header_file=None), []),
        (
            access(url="https://10.0.0.1:8000/v1", certificate_file=Path("/state/endpoint.crt")),
            ["--cacert", "/state/endpoint.crt", "-H", "@/state/my key.header"],
        ),
    ],
)
def test_the_request_reads_key_and_certificate_from_their_files(reach: Access, options: list[str]) -> None:
    words = shlex.split(curl_line(reach, "it's a model"))
    assert words[:2] == ["curl", f"{reach.url}/chat/completions"]
    assert words[2:-4] == options
    assert words[-4:-1] == ["-H", "Content-Type: application/json", "-d"]
    assert json.loads(words[-1])["model"] == "it's a model"


def _fail(step: Step) -> None:
    step.change("starting")
    raise ValueError("no")


def test_in_a_pipe_each_event_is_a_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = PlainReporter()
    with reporter.step("image x") as step:
        step.bound(90)
        step.part("aa", done=5, total=10, status="Downloading")
        step.part("aa", done=1, total=1, status="Pull complete")
        for percent in range(100):
            step.part("bb", done=percent * 10**8, total=10**10, status="90 MB/s")
        step.result("pulled")
    with pytest.raises(ValueError, match="no"), reporter.step("head") as step:
        _fail(step)
    assert capsys.readouterr().err.splitlines() == [
        "image x: waiting up to 1 min 30 s",
        "image x: aa pull complete",
        "image x: bb 25 % 90 MB/s",
        "image x: bb 50 % 90 MB/s",
        "image x: bb 75 % 90 MB/s",
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
