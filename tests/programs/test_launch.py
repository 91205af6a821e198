"""The engine container's main program, with real processes and a real HTTP server in place of vLLM.

The folder is laid out as in the container; a watch.py and a serve.py of the tests' own do what files tell them to.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.programs.support import copy_payload, free_port
from vllmray.payload.engine import launch
from vllmray.payload.engine.gate import Gate, StateFile
from vllmray.payload.engine.server import stand_in
from vllmray.payload.journal import Entry, parse

NODES = [
    {"id": "a1", "ip": "10.0.0.1", "is_head": True, "gpus_total": 1.0, "gpus_used": 0.0},
    {"id": "b2", "ip": "10.0.0.2", "is_head": False, "gpus_total": 1.0, "gpus_used": 0.0},
]
WATCH = """
import json, pathlib, sys, threading, time
threading.Thread(target=lambda: (sys.stdin.read(), __import__("os")._exit(0)), daemon=True).start()
source = pathlib.Path(__file__).parents[4] / "seen.json"
last = None
while True:
    text = source.read_text()
    if text != last:
        last = text
        print(text, flush=True)
    time.sleep(0.02)
"""
SERVE = """
import argparse, http.server, json, os, pathlib, socket, subprocess, sys, threading, time
parser = argparse.ArgumentParser()
parser.add_argument("--tell", type=int); parser.add_argument("--port", type=int); parser.add_argument("rest", nargs="*")
options = parser.parse_args()
home = pathlib.Path(__file__).parents[4]
say = lambda word: os.write(options.tell, word.encode() + b"\\n")
print("serving process", os.getpid(), flush=True)
subprocess.Popen(["sleep", "1000"], start_new_session=True)
if (home / "dies-at-import").exists(): sys.exit(3)
say("imported")
if not os.read(0, 64): sys.exit(0)
lines = []
for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
    try: lines.append(path.read_bytes().replace(b"\\0", b" ").decode())
    except OSError: pass  # it has ended
(home / "command-lines").write_text("\\n".join(lines))
tokens = 0
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.headers["Authorization"] != "Bearer sk-1" and not (home / "open").exists():
            self.send_response(401); self.send_header("Content-Length", "0"); self.end_headers()
            return
        counters = f"vllm:generation_tokens_total {tokens}\\n"
        self.answer(counters if self.path == "/metrics" else json.dumps({"data": [{"id": "m"}]}))
    def do_POST(self):
        global tokens
        self.rfile.read(int(self.headers["Content-Length"]))
        while (home / "stalls").exists(): time.sleep(0.05)
        tokens += 1
        self.answer("{}")
    def answer(self, body):
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body.encode())
    def log_message(self, *args): pass
class Server(http.server.ThreadingHTTPServer):
    def server_bind(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()
server = Server(("127.0.0.1", options.port), Handler)
say("listening")
threading.Thread(target=server.serve_forever, daemon=True).start()
while not (home / "dies").exists(): time.sleep(0.02)
(home / "dies").unlink()
"""


def read(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(path.read_text())
    return state


def until(condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


class Engine:
    """launch.py as the engine's container runs it."""

    def __init__(self, folder: Path, dashboard_port: int) -> None:
        self.folder = folder
        self.port, self.dashboard_port = free_port(), dashboard_port
        (folder / "secrets").mkdir()
        (folder / "secrets/api_key").write_text("sk-1\n")
        payload = copy_payload(folder)
        self.program = payload / "engine/launch.py"
        (payload / "engine/serve.py").write_text(SERVE)
        (payload / "node/watch.py").write_text(WATCH)
        self.ray = folder / "ray"
        self.ray.mkdir()
        self.state_file = self.ray / "vllmray/engine.json"
        self.log = folder / "log"
        self.sees(NODES)

    def sees(self, nodes: list[dict[str, Any]], **more: object) -> None:
        """What Ray says from now on."""
        total = sum(node["gpus_total"] for node in nodes)
        seen = {"nodes": nodes, "shortfall": "" if total >= 2 else f"{total:g} of 2 GPUs", "actors": None, **more}
        new = self.folder / "seen.new"
        new.write_text(json.dumps(seen))
        new.replace(self.folder / "seen.json")

    def takes_note(self, nodes: list[dict[str, Any]], actors: int | None = None) -> None:
        """The same, until launch.py has looked at it."""
        self.sees(nodes, actors=actors)
        want = {"nodes": nodes, "actors": actors}
        until(lambda: want.items() <= self.state["ray"].items(), f"Ray's word in the state: {want}")
        time.sleep(launch.TICK_S)

    def start(self, *more: str) -> None:
        argv = [sys.executable, str(self.program), "--address=10.0.0.1:6379", "--gate={}"]
        argv += [f"--state={self.state_file}", f"--port={self.port}", "--start-timeout=100", *more]
        argv += [f"--dashboard-port={self.dashboard_port}"]
        argv += [] if any("stall" in word for word in more) else ["--stall-timeout=100"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([*argv, "--", "--model=m"], stdout=log, stderr=log)

    def switch(self, name: str, *, on: bool = True) -> None:
        (self.folder / name).touch() if on else (self.folder / name).unlink()

    def children(self, script: str) -> list[int]:
        """Processes that launch.py started with that script."""
        found = subprocess.run(["pgrep", "-P", str(self.process.pid), "-f", script], capture_output=True, check=False)
        return [int(pid) for pid in found.stdout.split()]

    @property
    def state(self) -> dict[str, Any]:
        return read(self.state_file) if self.state_file.exists() else {}

    def is_in(self, phase: str) -> None:
        until(lambda: self.state.get("phase") == phase, f"{phase}; {self.state}")

    def waits_for(self, detail: str) -> None:
        until(lambda: (self.state.get("phase"), self.state.get("detail")) == ("waiting", detail), detail)

    def entries(self) -> list[Entry]:
        found = (parse(line) for line in self.log.read_text().splitlines())
        return [entry for entry in found if entry]

    def told(self, kind: str) -> list[str]:
        return [entry.text for entry in self.entries() if entry.kind == kind]

    def servers(self) -> list[int]:
        lines = self.log.read_text().splitlines()
        return [int(line.split()[-1]) for line in lines if line.startswith("serving process")]

    def ask(self, path: str = "/v1/models") -> tuple[int, dict[str, str]]:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", headers={"Authorization": "Bearer sk-1"}
        )
        try:
            with opener.open(request, timeout=10) as reply:
                return reply.status, dict(reply.headers)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers)

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


class Dashboard(BaseHTTPRequestHandler):
    """Ray's, as far as it says whether Ray asks for a token (tests/native has the real one)."""

    server: DashboardServer

    def do_GET(self) -> None:
        assert self.path == "/api/authentication_mode"
        code, body = self.server.says
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


class DashboardServer(ThreadingHTTPServer):
    says = (200, b'{"authentication_mode": "token"}')


@pytest.fixture
def dashboard() -> Iterator[DashboardServer]:
    with DashboardServer(("127.0.0.1", 0), Dashboard) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def engine(tmp_path: Path, dashboard: DashboardServer) -> Iterator[Engine]:
    made = Engine(tmp_path, dashboard.server_port)
    yield made
    if made.process.poll() is None:
        made.end()
    print(made.log.read_text())


def runs(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False


def sleepers() -> set[int]:
    """What the tests' servers leave behind when nobody takes it away."""
    lines = Path("/proc").glob("[0-9]*/cmdline")
    return {int(line.parent.name) for line in lines if _bytes(line) == b"sleep\x001000\x00"}


def test_it_serves_once_the_gpus_are_there_and_ends_with_everything_it_started(engine: Engine) -> None:
    before = sleepers()
    engine.sees(NODES[:1])
    engine.start()
    engine.waits_for("1 of 2 GPUs")
    status, headers = engine.ask()
    assert (status, headers["Retry-After"]) == (503, "10")
    engine.sees(NODES)
    engine.is_in("ready")
    assert engine.ask()[0] == 200
    assert engine.told("joined") == ["10.0.0.1, 1 GPU", "10.0.0.2, 1 GPU"]
    server = engine.servers()[0]
    assert engine.end() == 0
    assert not runs(server)
    assert sleepers() == before
    assert engine.told("stopped") == ["received SIGTERM"]


def test_the_raylet_s_stand_in_is_to_be_seen_at_once() -> None:
    for _ in range(200):
        process = stand_in("a1")
        line = _bytes(Path(f"/proc/{process.pid}/cmdline"))
        process.communicate()
        assert line.startswith(b"raylet\0")
        assert line.endswith(b"--node_id=a1\0")


def test_ray_s_driver_is_shown_the_raylet_of_the_head(engine: Engine) -> None:
    engine.start()
    engine.is_in("ready")
    lines = (engine.folder / "command-lines").read_text().splitlines()
    assert [line for line in lines if line.startswith("raylet ") and "--node_id=a1" in line]
    engine.end()
    assert not [line for line in Path("/proc").glob("[0-9]*/cmdline") if b"--node_id=a1" in _bytes(line)]


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_no_engine_starts_while_something_holds_a_gpu(engine: Engine) -> None:
    engine.sees([NODES[0], {**NODES[1], "gpus_used": 1.0}])
    engine.start()
    engine.waits_for("GPUs still in use in Ray: 1 on 10.0.0.2")
    assert engine.told("starting") == []
    engine.sees(NODES)
    engine.is_in("ready")
    assert len(engine.told("starting")) == 1


def test_no_engine_starts_while_another_program_fills_its_gpu(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    smi, gpu = engine.folder / "nvidia-smi", engine.folder / "gpu"
    smi.write_text(f"#!/bin/sh\ncat {gpu}\n")
    smi.chmod(0o755)
    line = "{index}, GPU-{index}, NVIDIA H100, 81559, {used}, {free}, Disabled\n"
    full = line.format(index=0, used=77000, free=4008)
    gpu.write_text(full + line.format(index=1, used=81000, free=8))
    monkeypatch.setenv("PATH", str(engine.folder), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    engine.start("--room", json.dumps({"accelerator": "nvidia", "share": 0.92, "ranks": 1}))
    said = "too little free memory: GPU 0 has 3.9 of 79.1 GiB free, 72.8 are needed"  # and of GPU 1 it takes nothing
    engine.waits_for(said)
    assert not (engine.folder / "command-lines").exists()
    gpu.write_text(full.replace("77000, 4008", "1, 81007"))
    engine.is_in("ready")
    assert engine.told("waiting")[-1] == said
    assert engine.told("waiting").count(said) == 1


def test_a_server_that_dies_is_followed_by_another_and_who_asks_meanwhile_is_told_to_wait(engine: Engine) -> None:
    before = sleepers()
    engine.start()
    engine.is_in("ready")
    engine.sees(NODES[:1])  # so that the next one waits, and the answers between can be seen
    engine.switch("dies")
    until(lambda: engine.state["deaths"] == 1, "a death")
    engine.is_in("waiting")
    assert engine.ask()[0] == 503
    assert engine.state["missing_since"] == pytest.approx(time.time(), abs=10)
    assert len(sleepers() - before) <= 1  # the next server's own
    engine.sees(NODES)
    engine.is_in("ready")
    assert engine.ask()[0] == 200
    assert engine.state["missing_since"] is None
    assert len(engine.servers()) == 2
    assert engine.told("died") == ["the vLLM server exited unexpectedly (exit code 0)"]
    assert engine.told("lost") == ["10.0.0.2, 1 GPU"]


def test_a_server_that_is_killed_is_told_of_by_its_signal(engine: Engine) -> None:
    engine.start()
    engine.is_in("ready")
    os.kill(engine.servers()[0], signal.SIGKILL)
    until(lambda: bool(engine.told("died")), "a death")
    assert engine.told("died") == ["the vLLM server exited unexpectedly (SIGKILL)"]


def test_a_server_on_a_node_that_is_lost_is_ended(engine: Engine) -> None:
    engine.start()
    engine.is_in("ready")
    engine.takes_note([{**node, "gpus_used": 1.0} for node in NODES])
    engine.sees([{**NODES[0], "gpus_used": 1.0}])
    until(lambda: bool(engine.told("died")), "a death")
    assert engine.told("died") == ["lost node 10.0.0.2, 1 GPU"]
    assert not runs(engine.servers()[0])


def test_a_node_without_a_part_in_it_may_go(engine: Engine) -> None:
    spare = {**NODES[1], "id": "c3", "ip": "10.0.0.3"}
    used = [{**node, "gpus_used": 1.0} for node in NODES]
    engine.sees([*NODES, spare])
    engine.start()
    engine.is_in("ready")
    engine.takes_note([*used, spare])
    engine.sees(used)
    until(lambda: engine.told("lost") == ["10.0.0.3, 1 GPU"], "the loss")
    time.sleep(2.5)
    assert engine.told("died") == []


def test_a_server_that_lost_a_process_in_ray_is_ended(engine: Engine) -> None:
    engine.start()
    engine.is_in("ready")
    engine.takes_note(NODES, actors=2)
    engine.sees(NODES, actors=1)
    until(lambda: bool(engine.told("died")), "a death")
    assert engine.told("died") == ["1 of its 2 Ray actors died"]


def test_a_server_that_stalls_is_ended_and_the_reason_told(engine: Engine) -> None:
    engine.start("--stall-timeout=2")
    engine.is_in("ready")
    engine.switch("stalls")
    until(lambda: bool(engine.told("died")), "a death")
    assert engine.told("died")[0].startswith("the engine stalled: no token for ")
    engine.switch("stalls", on=False)
    engine.is_in("ready")


def test_a_server_that_is_not_ready_in_time_is_ended(engine: Engine) -> None:
    engine.switch("stalls")
    engine.start("--start-timeout=1")
    until(lambda: bool(engine.told("died")), "a death")
    assert engine.told("died")[0].startswith("did not become ready within ")


def test_after_five_deaths_no_further_server_starts(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    program = engine.program
    text = program.read_text()
    assert "PAUSES_S = (0.0, 2.0, 5.0, 10.0)" in text
    program.write_text(text.replace("PAUSES_S = (0.0, 2.0, 5.0, 10.0)", "PAUSES_S = (0.0, 0.3)"))
    engine.start()
    for death in range(1, 6):
        engine.is_in("ready")
        engine.switch("dies")
        until(lambda death=death: engine.state["deaths"] == death, f"death {death}")  # type: ignore[misc]
    engine.is_in("given-up")
    assert engine.state["detail"] == "it was started 5 times within 10 minutes and exited each time"
    assert engine.told("given-up") == [engine.state["detail"]]
    assert engine.ask()[0] == 503
    time.sleep(1.5)
    assert len(engine.servers()) == 5
    assert engine.end() == 0


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (
            (200, b'{"authentication_mode": "disabled"}'),
            "Ray does not require token authentication (authentication mode 'disabled')",
        ),
        ((404, b""), "its dashboard's port, answered HTTP 404 instead of the authentication mode"),
        ((200, b"<html>"), "its dashboard's port, answered something else instead"),
    ],
    ids=["disabled", "a Ray older than tokens", "not Ray's"],
)
def test_no_server_starts_where_ray_asks_for_no_token_and_none_is_tried_again(
    engine: Engine, dashboard: DashboardServer, says: tuple[int, bytes], why: str
) -> None:
    dashboard.says = says
    engine.start()
    engine.is_in("insecure")
    assert why in engine.state["detail"]
    assert engine.told("insecure") == [engine.state["detail"]]
    assert engine.told("starting") == engine.told("died") == []
    assert engine.ask()[0] == 503
    assert not runs(engine.servers()[0])
    time.sleep(2.5)
    assert len(engine.servers()) == 1
    assert engine.end() == 0


def test_an_endpoint_that_answers_without_the_key_is_ended_before_it_is_ready(engine: Engine) -> None:
    engine.switch("open")
    engine.start()
    engine.is_in("insecure")
    assert engine.state["detail"].startswith("the endpoint answered a request without the API key with HTTP 200")
    assert engine.told("ready") == []
    assert not runs(engine.servers()[0])
    assert engine.ask()[0] == 503
    time.sleep(2.5)
    assert len(engine.servers()) == 1


def test_one_that_is_to_ask_for_no_key_is_ready_without(engine: Engine) -> None:
    engine.switch("open")
    (engine.folder / "secrets/api_key").unlink()
    engine.start("--no-api-key")
    engine.is_in("ready")
    assert len(engine.told("ready")) == 1


def test_ray_is_asked_again_at_every_start_of_a_server(engine: Engine, dashboard: DashboardServer) -> None:
    engine.start()
    engine.is_in("ready")
    dashboard.says = (200, b'{"authentication_mode": "disabled"}')
    engine.switch("dies")
    engine.is_in("insecure")
    assert len(engine.told("starting")) == 1


def test_while_ray_says_nothing_no_server_starts(engine: Engine, dashboard: DashboardServer) -> None:
    """Neither its dashboard, nor its GCS: the Python of the tests has no Ray to ask it with."""
    dashboard.says = (500, b"")
    engine.start()
    until(lambda: "Ray has not reported its authentication mode yet: " in engine.state.get("detail", ""), "the wait")
    assert engine.state["phase"] == "waiting"
    assert engine.told("starting") == []
    dashboard.says = DashboardServer.says
    engine.is_in("ready")


def test_one_that_served_for_a_while_is_no_reason_to_give_up(engine: Engine) -> None:
    program = engine.program
    text = program.read_text()
    assert "SERVED_S = 10.0" in text
    program.write_text(
        text.replace("SERVED_S = 10.0", "SERVED_S = 1.0").replace("PAUSES_S = (0.0, 2.0", "PAUSES_S = (0.0, 0.1")
    )
    engine.start()
    for death in range(1, 7):
        engine.is_in("ready")
        time.sleep(2.5)
        engine.switch("dies")
        until(lambda death=death: engine.state["deaths"] == death, f"death {death}")  # type: ignore[misc]
    engine.is_in("ready")


def test_a_server_that_can_not_even_be_imported_counts(engine: Engine) -> None:
    program = engine.program
    program.write_text(program.read_text().replace("PAUSES_S = (0.0, 2.0, 5.0, 10.0)", "PAUSES_S = (0.0, 0.1)"))
    engine.switch("dies-at-import")
    engine.start()
    engine.is_in("given-up")
    assert engine.told("died") == ["the vLLM server exited unexpectedly (exit code 3)"] * 5


def test_a_watch_that_ends_is_followed_by_another_and_a_server_goes_on(engine: Engine) -> None:
    engine.start()
    engine.is_in("ready")
    before = engine.children("watch.py")
    os.kill(before[0], signal.SIGKILL)
    until(lambda: engine.state["ray"].get("error") == "watch.py exited with exit code -9", "the end of the watch")
    until(lambda: "error" not in engine.state["ray"], "another watch")
    assert engine.children("watch.py") != before
    assert engine.told("died") == []
    assert engine.state["phase"] == "ready"


def test_sockets_that_an_engine_left_are_gone_before_the_next(engine: Engine) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(engine.ray / "left"))
    (engine.ray / "kept").touch()
    engine.start()
    engine.is_in("ready")
    assert {path.name for path in engine.ray.iterdir()} == {"kept", "vllmray"}


def test_since_moves_with_the_phase_only(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "engine.json"
    state = StateFile(path)
    state.phase("waiting", "1 of 2 GPUs")
    before = read(path)
    state.phase("waiting", "2 of 2 GPUs")
    after = read(path)
    assert (after["phase"], after["detail"]) == ("waiting", "2 of 2 GPUs")
    assert after["since"] == before["since"]
    state.phase("ready")
    assert read(path)["since"] > before["since"]


def test_a_beat_is_told_by_a_clock_that_nobody_sets(tmp_path: Path) -> None:
    """The same that /proc/uptime shows (man 5 proc), so `status` on any host can tell how old it is."""
    StateFile(tmp_path / "engine.json").phase("importing")
    now = float(Path("/proc/uptime").read_text().split()[0])
    assert now - 60 < read(tmp_path / "engine.json")["heartbeat"] <= now + 0.01 < time.time()


def test_a_full_disk_does_not_end_an_engine(tmp_path: Path) -> None:
    (tmp_path / "no-folder").touch()
    state = StateFile(tmp_path / "no-folder" / "engine.json")
    state.phase("ready")
    assert state.current == "ready"


def test_the_gate_takes_no_notice_of_what_ray_prints_between(tmp_path: Path) -> None:
    lines = [{"error": "no GCS"}, {"nodes": [], "shortfall": "1 of 2 GPUs"}, {"nodes": NODES, "shortfall": ""}]
    prints = "for line in ('a warning of Ray', '{}', '3', 'null', '[1]', '\"a word\"'): print(line)\n"
    prints += "".join(f"print({json.dumps(json.dumps(line))}, flush=True)\n" for line in lines)
    prints += "import time; time.sleep(30)"
    watch = subprocess.Popen([sys.executable, "-c", prints], stdout=subprocess.PIPE, text=True)
    gate = Gate(StateFile(tmp_path / "engine.json"), lambda: watch, threading.Event())
    until(lambda: gate.closed_by == "", "what the last line says")
    assert gate.head == "a1"
    watch.kill()


@pytest.mark.parametrize(("keys", "key"), [((), None), (("one",), "one"), (("one", "two"), "one")])
def test_the_key_is_found_where_the_guard_finds_it_and_in_no_variable(
    tmp_path: Path, keys: tuple[str, ...], key: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "from environment")
    if keys:
        (tmp_path / "secrets").mkdir()
        (tmp_path / "secrets/api_key").write_text("".join(f"{key}\n" for key in keys))
    assert launch.api_key(tmp_path) == key


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--model=m"], None),
        (["--ssl-certfile=/c", "--ssl-keyfile=/k"], ("/c", "/k")),
        (["--ssl-certfile=/both"], ("/both", "/both")),
        (["--enforce-eager", "--ssl-certfile=/c=1", "--ssl-keyfile=/k"], ("/c=1", "/k")),
    ],
)
def test_the_certificate_is_the_server_s(arguments: list[str], found: tuple[str, str] | None) -> None:
    assert launch.certificate_of(arguments) == found
