"""The main process of a Ray node's container, with real processes in place of Ray."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.programs.support import copy_payload, free_port
from vllmray.payload.journal import Entry, parse
from vllmray.payload.node import main as node
from vllmray.payload.node.main import RayNode, Segments, clear, healthy, idle_though_asked


class Agent(BaseHTTPRequestHandler):
    """Ray's agent, and the head's dashboard."""

    codes: dict[str, int]

    def do_GET(self) -> None:
        self.send_response(self.codes.get(self.path, 404))
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def agent() -> Iterator[int]:
    Agent.codes = {"/api/local_raylet_healthz": 200, "/api/gcs_healthz": 200}
    with ThreadingHTTPServer(("127.0.0.1", 0), Agent) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server.server_port
        server.shutdown()


class Container:
    """node.py as a node's container runs it."""

    def __init__(self, folder: Path, *argv: str) -> None:
        program = copy_payload(folder) / "node/main.py"
        self.log = folder / "log"
        with self.log.open("wb") as log:
            line = [sys.executable, str(program), f"--folder={folder / 'ray'}", *argv]
            self.process = subprocess.Popen(line, stdout=log, stderr=log)

    def entries(self) -> list[Entry]:
        return [entry for line in self.log.read_text().splitlines() if (entry := parse(line))]

    def told(self, kind: str) -> list[str]:
        return [entry.text for entry in self.entries() if entry.kind == kind]

    def until_told(self, kind: str) -> list[str]:
        deadline = time.monotonic() + 20
        while not self.told(kind):
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)
        return self.told(kind)


def test_its_exit_code_is_ray_s(tmp_path: Path) -> None:
    container = Container(tmp_path, "--agent-port=1", "--", "sh", "-c", "exit 3")
    assert container.process.wait(10) == 3
    assert container.told("node-ended") == ["Ray exited with exit code 3"]


def test_told_to_end_it_tells_ray_and_waits_for_it(tmp_path: Path) -> None:
    script = (
        f"trap 'sleep 0.5; touch {tmp_path}/drained; exit 1' TERM; touch {tmp_path}/runs; while :; do sleep 0.05; done"
    )
    container = Container(tmp_path, "--agent-port=1", "--", "sh", "-c", script)
    while not (tmp_path / "runs").exists():
        time.sleep(0.02)
    container.process.send_signal(signal.SIGTERM)
    assert container.process.wait(10) == 1
    assert (tmp_path / "drained").exists()
    assert container.told("stopped") == ["Ray exited with exit code 1"]


def test_a_worker_waits_for_the_head_and_starts_as_soon_as_it_listens(tmp_path: Path) -> None:
    port = free_port()
    container = Container(
        tmp_path, "--agent-port=1", f"--head=127.0.0.1:{port}", "--", "touch", str(tmp_path / "started")
    )
    assert container.until_told("waiting") == [f"for the head at 127.0.0.1:{port}: Connection refused"]
    time.sleep(1.5)
    assert not (tmp_path / "started").exists()
    assert container.told("waiting") == [f"for the head at 127.0.0.1:{port}: Connection refused"]
    with socket.socket() as head:
        head.bind(("127.0.0.1", port))
        head.listen()
        assert container.process.wait(5) == 0
    assert (tmp_path / "started").exists()


def test_told_to_end_while_it_waits_it_ends(tmp_path: Path) -> None:
    container = Container(tmp_path, "--agent-port=1", f"--head=127.0.0.1:{free_port()}", "--", "true")
    container.until_told("waiting")
    container.process.send_signal(signal.SIGTERM)
    assert container.process.wait(5) == 143


@pytest.mark.parametrize("question", ["local_raylet_healthz", "gcs_healthz"])
def test_a_node_that_was_alive_and_is_not_any_more_is_ended(
    agent: int, question: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(node, "LOOK_S", 0.1)
    monkeypatch.setattr(node, "SILENT_S", 0.6)
    watched = RayNode(["sleep", "1010"], lambda: node.alive(agent, agent), lambda: None)
    ended: list[int] = []
    thread = threading.Thread(target=lambda: ended.append(watched.run()))
    thread.start()
    time.sleep(1)
    assert thread.is_alive()
    Agent.codes[f"/api/{question}"] = 503
    thread.join(10)
    assert ended == [128 + signal.SIGKILL]
    assert "GCS has not reported this node alive for" in capsys.readouterr().out


def test_a_node_that_is_away_for_a_moment_stays(agent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "LOOK_S", 0.1)
    monkeypatch.setattr(node, "SILENT_S", 2.0)
    watched = RayNode(["sleep", "3"], lambda: node.alive(agent, None), lambda: None)
    threading.Timer(0.5, lambda: Agent.codes.update({"/api/local_raylet_healthz": 503})).start()
    threading.Timer(1.5, lambda: Agent.codes.update({"/api/local_raylet_healthz": 200})).start()
    assert watched.run() == 0


@pytest.mark.parametrize(("step", "code"), [(-3600.0, 128 + signal.SIGKILL), (-20.0, 0), (3600.0, 0)])
def test_a_node_whose_clock_was_set_back_is_ended(
    step: float, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(node, "LOOK_S", 0.1)
    begin = time.monotonic()
    monkeypatch.setattr(node, "wall_lead", lambda: 1e9 + (step if time.monotonic() - begin > 0.5 else 0.0))
    assert RayNode(["sleep", "1.5"], lambda: True, lambda: None).run() == code
    told = "the system clock was set back by 3600 s, which stops Ray's timers for as long" in capsys.readouterr().out
    assert told == (code != 0)


@pytest.mark.parametrize("home", [True, False])
def test_a_worker_that_comes_back_pauses_and_one_that_comes_does_not(tmp_path: Path, home: bool) -> None:
    took = []
    if home:
        (tmp_path / "home").mkdir()
    with socket.socket() as head:
        head.bind(("127.0.0.1", 0))
        head.listen()
        for _ in range(2):
            began = time.monotonic()
            container = Container(tmp_path, "--agent-port=1", f"--head=127.0.0.1:{head.getsockname()[1]}", "--", "true")
            assert container.process.wait(20) == 0
            took.append(time.monotonic() - began)
    assert took[0] < node.BACK_AGAIN_S < took[1]
    assert (tmp_path / ("home/has-run" if home else "has-run")).exists()


def asked_of_ray(**changes: Any) -> dict[str, Any]:
    """What launch.py says of an engine that starts, and that Ray has given nothing."""
    nodes = [{"gpus_total": 1.0, "gpus_used": 0.0}, {"gpus_total": 1.0, "gpus_used": changes.pop("used", 0.0)}]
    ray = {"nodes": nodes, "pending": changes.pop("pending", ["{'GPU': 1.0} * 2"]), "shortfall": ""}
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    return {"phase": "starting", "heartbeat": now - changes.pop("age", 0.0), "ray": ray, **changes}


@pytest.mark.parametrize(
    ("changes", "stuck"),
    [
        ({}, True),
        ({"used": 1.0}, False),
        ({"pending": []}, False),
        ({"phase": "ready"}, False),
        ({"age": 11.0}, False),
        ({"ray": {"error": "RpcError"}}, False),
    ],
)
def test_an_engine_that_waits_for_gpus_that_are_free_is_known_by_its_word(
    tmp_path: Path, changes: dict[str, Any], stuck: bool
) -> None:
    (tmp_path / "engine.json").write_text(json.dumps(asked_of_ray(**changes)))
    assert idle_though_asked(tmp_path / "engine.json") is stuck


@pytest.mark.parametrize("text", ["{}", "[]", "", None])
def test_an_engine_that_says_nothing_of_use_waits_for_nothing(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "engine.json").write_text(text)
    assert idle_though_asked(tmp_path / "engine.json") is False


def test_a_head_whose_scheduler_hangs_is_ended_and_one_that_is_slow_is_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(node, "LOOK_S", 0.1)
    monkeypatch.setattr(node, "STUCK_S", 0.6)
    assert RayNode(["sleep", "1010"], lambda: True, lambda: None, lambda: True).run() == 128 + signal.SIGKILL
    assert "Ray's scheduler hangs: no GPU allocated for 1 s although all were free" in capsys.readouterr().out
    answers = itertools.cycle([True, True, True, False])
    assert RayNode(["sleep", "2"], lambda: True, lambda: None, lambda: next(answers)).run() == 0


def test_where_nothing_could_say_it_is_alive_it_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ray without its dashboard has no agent."""
    monkeypatch.setattr(node, "LOOK_S", 0.1)
    monkeypatch.setattr(node, "SILENT_S", 0.3)
    watched = RayNode(["sleep", "1.5"], lambda: node.alive(free_port(), None), lambda: None)
    assert watched.run() == 0


def test_health_is_ray_s_own_answer_or_none(agent: int) -> None:
    assert healthy(agent, "local_raylet_healthz") is True
    Agent.codes["/api/local_raylet_healthz"] = 503
    assert healthy(agent, "local_raylet_healthz") is False
    assert healthy(free_port(), "local_raylet_healthz") is None


def test_one_that_accepts_and_says_nothing_is_not_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is stopped: the kernel takes connections for it."""
    monkeypatch.setattr(node, "ANSWER_S", 0.3)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        assert healthy(silent.getsockname()[1], "gcs_healthz") is False


def test_what_earlier_sessions_left_is_gone_and_the_engine_s_word_stays(tmp_path: Path) -> None:
    (tmp_path / "session_1/logs").mkdir(parents=True)
    (tmp_path / "session_1/logs/raylet.out").touch()
    (tmp_path / "session_latest").symlink_to(tmp_path / "session_1")
    (tmp_path / "vllmray").mkdir()
    (tmp_path / "vllmray/engine.json").write_text(json.dumps({}))
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "socket"))
    clear(tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} == {"vllmray", "vllmray/engine.json"}
    clear(tmp_path / "not there")


def test_a_link_is_taken_away_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/kept").touch()
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray/session_evil").symlink_to(tmp_path / "outside")
    clear(tmp_path / "ray")
    assert (tmp_path / "outside/kept").exists()
    assert list((tmp_path / "ray").iterdir()) == []


def test_memory_that_nobody_holds_at_two_looks_goes(tmp_path: Path) -> None:
    """A file in a folder stands for a segment: what counts is who has it open or mapped."""
    for name in ("left", "open", "mapped"):
        (tmp_path / name).write_bytes(b"x" * 4096)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import mmap, sys; a = open(sys.argv[1]); b = open(sys.argv[2], 'r+b'); m = mmap.mmap(b.fileno(), 0)\n"
            "b.close(); print('holds', flush=True); sys.stdin.read()",
            str(tmp_path / "open"),
            str(tmp_path / "mapped"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    segments = Segments(tmp_path)
    segments.sweep()
    assert {path.name for path in tmp_path.iterdir()} == {"left", "open", "mapped"}
    segments.sweep()
    assert {path.name for path in tmp_path.iterdir()} == {"open", "mapped"}
    holder.communicate()
    segments.sweep()
    segments.sweep()
    assert os.listdir(tmp_path) == []  # noqa: PTH208  # names are what it is about
