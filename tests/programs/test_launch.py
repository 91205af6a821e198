"""The engine container's main program, with real child processes and a real HTTP server in place of vLLM."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from vllmray.engine import launch
from vllmray.engine.launch import Endpoint, Gate, State, announce_readiness


def read(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(path.read_text())
    return state


def child(script: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def end(watch: subprocess.Popen[str]) -> None:
    assert watch.stdin is not None
    assert watch.stdout is not None
    watch.stdin.close()
    watch.wait(timeout=20)
    watch.stdout.close()


def test_since_moves_with_the_phase_only(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "engine.json"
    state = State(path)
    state.phase("waiting", "1 of 2 GPUs")
    before = read(path)
    state.phase("waiting", "2 of 2 GPUs")
    after = read(path)
    assert (after["phase"], after["detail"]) == ("waiting", "2 of 2 GPUs")
    assert after["since"] == before["since"]
    state.phase("ready")
    assert read(path)["since"] > before["since"]


def test_the_gate_opens_at_the_first_line_without_shortfall_and_goes_on_telling(tmp_path: Path) -> None:
    lines = [{"error": "no GCS"}, {"nodes": [], "shortfall": "1 of 2 GPUs"}, {"nodes": [1, 2], "shortfall": ""}]
    prints = "print('a warning of Ray')\nprint('{}')\n"
    prints += "".join(f"print({json.dumps(json.dumps(line))}, flush=True)\n" for line in lines)
    watch = child(f"import sys\n{prints}sys.stdin.read()")
    path = tmp_path / "engine.json"
    state = State(path)
    Gate(state, watch).wait()
    assert read(path)["phase"] == "waiting"
    assert read(path)["ray"]["nodes"] == [1, 2]
    end(watch)


def test_a_watch_that_dies_before_the_gpus_are_there_ends_the_engine(tmp_path: Path) -> None:
    watch = child('print(\'{"shortfall": "1 of 2 GPUs"}\'); raise SystemExit(3)')
    with pytest.raises(RuntimeError, match=r"watch\.py ended with exit code 3"):
        Gate(State(tmp_path / "engine.json"), watch).wait()
    end(watch)


def in_a_container(folder: Path, *keys: str) -> Any:
    """launch.py as it lies in the engine's container: beside the secrets, and below nothing of ours."""
    program = Path(shutil.copy(launch.__file__, folder))
    if keys:
        (folder / "secrets").mkdir()
        (folder / "secrets/api_key").write_text("".join(f"{key}\n" for key in keys))
    spec = importlib.util.spec_from_file_location("launch_in_a_container", program)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("keys", "key"), [((), None), (("one",), "one"), (("one", "two"), "one")])
def test_the_key_is_found_where_the_guard_finds_it_and_in_no_variable(
    tmp_path: Path, keys: tuple[str, ...], key: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "from environment")
    assert in_a_container(tmp_path, *keys).api_key() == key


def test_a_beat_is_told_by_a_clock_that_nobody_sets(tmp_path: Path) -> None:
    """The same that /proc/uptime shows (man 5 proc), so `status` on any host can tell how old it is."""
    State(tmp_path / "engine.json").phase("importing")
    now = float(Path("/proc/uptime").read_text().split()[0])
    assert now - 60 < read(tmp_path / "engine.json")["heartbeat"] <= now + 0.01 < time.time()


class FakeServer(BaseHTTPRequestHandler):
    """vLLM's routes, as far as the readiness probe sees them."""

    completions: list[int]
    seen: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        self._answer(200, {"data": [{"id": "the model"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert body == {"model": "the model", "prompt": "1", "max_tokens": 1}
        self._answer(self.completions.pop(0), {})

    def _answer(self, code: int, body: dict[str, Any]) -> None:
        self.seen.append((self.path, self.headers.get("Authorization")))
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    FakeServer.completions, FakeServer.seen = [], []
    with ThreadingHTTPServer(("127.0.0.1", 0), FakeServer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_ready_is_a_completion_that_was_answered(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    FakeServer.completions = [500, 200]
    state = State(tmp_path / "engine.json")
    announce_readiness(state, in_a_container(tmp_path, "secret").Endpoint(server.server_port, []))
    assert read(tmp_path / "engine.json")["phase"] == "ready"
    assert [path for path, _ in FakeServer.seen] == ["/v1/models", "/v1/completions"] * 2
    assert {key for _, key in FakeServer.seen} == {"Bearer secret"}


def test_a_model_without_completions_is_ready_when_it_is_listed(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    FakeServer.completions = [404]
    state = State(tmp_path / "engine.json")
    announce_readiness(state, Endpoint(server.server_port, []))
    assert state.current == "ready"
    assert {key for _, key in FakeServer.seen} == {None}
