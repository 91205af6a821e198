"""Ctrl-C at a real terminal: the first interrupts, the second leaves at once, also when the clean-up hangs."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any

import pytest

CTRL_C = b"\x03"
ENGINE = {
    "Id": "e" * 64,
    "Name": "/vllmray-engine",
    "State": {
        "Status": "running",
        "ExitCode": 0,
        "Error": "",
        "StartedAt": "2026-01-01T00:00:00Z",
        "FinishedAt": "0001-01-01T00:00:00Z",
    },
    "Config": {"Labels": {"io.vllmray.cluster": "vllmray", "io.vllmray.role": "engine"}, "Image": "image:1"},
    "RestartCount": 0,
}


class Daemon(ThreadingMixIn, UnixStreamServer):
    """As much of a Docker daemon as `down` asks for; what it is told to end never ends."""

    daemon_threads = True
    block_on_close = False
    asked: list[str]


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Daemon

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def address_string(self) -> str:
        return ""

    def _say(self, value: Any, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_HEAD(self) -> None:
        self._say({})

    def do_GET(self) -> None:
        path = self._path()
        if path.endswith("/containers/json"):
            self._say([] if "io.vllmray.lock" in self.path else [ENGINE])
        elif path.endswith("/json"):
            self._say(ENGINE)
        else:
            self._say({"ApiVersion": "1.41", "Version": "20.10"})

    def do_POST(self) -> None:
        path = self._path()
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if path.endswith(("/stop", "/wait")):
            time.sleep(600)
        if path.endswith("/attach"):
            self.wfile.write(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
            self.rfile.read()
            self.close_connection = True
            return
        self._say({"Id": "f" * 64}, 201)

    def do_DELETE(self) -> None:
        self._path()
        time.sleep(600)

    def _path(self) -> str:
        path = self.path.partition("?")[0]
        self.server.asked.append(f"{self.command} {path}")
        return path


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(str(tmp_path / "docker.sock"), Answers)
    made.asked = []
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


class Terminal:
    """A command below a terminal of its own, as a person has it."""

    def __init__(self, docker_host: str, folder: Path, *argv: str) -> None:
        self.screen, other = pty.openpty()
        self.said = b""

        def take_terminal() -> None:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # as a shell gives it; below nohup it is ignored here
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            [sys.executable, "-m", "vllmray", *argv],
            stdin=other,
            stdout=other,
            stderr=other,
            cwd=folder,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": os.pathsep.join(sys.path),
                "HOME": str(folder),
                "TERM": "xterm",
                "DOCKER_HOST": docker_host,
            },
            preexec_fn=take_terminal,  # noqa: PLW1509
        )
        os.close(other)

    def type(self, keys: bytes) -> None:
        os.write(self.screen, keys)

    def read(self, seconds: float = 0.1) -> bytes:
        """Everything that came so far; of a program that goes on talking, what it said within a second."""
        until = time.monotonic() + 1
        while time.monotonic() < until and select.select([self.screen], [], [], seconds)[0]:
            try:
                self.said += os.read(self.screen, 65536)
            except OSError:  # nobody has it open any more
                break
        return self.said

    def end(self, seconds: float) -> int:
        """Its exit code, if it ends in time."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"not within {seconds} s: its end\n{self.read()!r}"
            self.read(0.02)
        self.read()
        return self.process.returncode

    def close(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        os.close(self.screen)


@pytest.fixture
def down(daemon: Daemon, tmp_path: Path) -> Iterator[Terminal]:
    """`vllmray down`, waiting for a container that does not stop."""
    terminal = Terminal(f"unix://{daemon.server_address!s}", tmp_path, "down")
    try:
        wait_for(lambda: any(line.endswith("/stop") for line in daemon.asked), terminal)
        yield terminal
    finally:
        terminal.close()


def wait_for(condition: Callable[[], bool], terminal: Terminal, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not come true in time\n{terminal.read()!r}"
        terminal.read(0.02)


def test_a_second_ctrl_c_leaves_at_once_though_the_clean_up_of_the_first_hangs(down: Terminal, daemon: Daemon) -> None:
    down.type(CTRL_C)
    wait_for(lambda: any(line.endswith("/wait") for line in daemon.asked), down)
    time.sleep(0.5)
    assert down.process.poll() is None
    began = time.monotonic()
    down.type(CTRL_C)
    assert down.end(5) == 130
    assert time.monotonic() - began < 2
    said = down.said.decode()
    (line,) = [line for line in said.splitlines() if "stopped without cleaning up" in line]
    assert "vllmray status" in line
    assert "Traceback" not in said
    # What the live list of steps has hidden is there again.
    assert re.findall(r"\x1b\[\?25[hl]", said)[-1] == "\x1b[?25h"


def test_one_ctrl_c_ends_with_130_and_a_word_once_the_clean_up_is_done(
    down: Terminal, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Answers, "do_POST", lambda self: self._say({"StatusCode": 0}))
    down.type(CTRL_C)
    assert down.end(10) == 130
    said = down.said.decode()
    assert "error: interrupted" in said
    assert "stopped without cleaning up" not in said
    assert "Traceback" not in said


def test_where_ctrl_c_is_ignored_it_stays_so(daemon: Daemon, tmp_path: Path) -> None:
    script = "trap '' INT; exec \"$@\""
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), "HOME": str(tmp_path)}
    process = subprocess.Popen(
        ["/bin/sh", "-c", script, "sh", sys.executable, "-m", "vllmray", "down"],
        env=env | {"DOCKER_HOST": f"unix://{daemon.server_address!s}"},
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 20
        while not any(line.endswith("/stop") for line in daemon.asked):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(0.3)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
