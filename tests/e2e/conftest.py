"""A user's folder on each host, and what a user looks at."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.rig.hosts import Rig, TestHost
from tests.rig.settings import base_settings


@dataclass(slots=True)
class User:
    """Someone at the shell of one host, in a folder with an .env file."""

    host: TestHost
    folder: Path
    settings: dict[str, str]
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    def write_settings(self, **changes: str) -> None:
        self.settings |= changes
        lines = [f"{name}={value}" for name, value in self.settings.items()]
        (self.folder / ".env").write_text("\n".join(lines) + "\n")

    def vllmray(self, *argv: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        done = self.host.vllmray(*argv, cwd=self.folder, timeout=timeout)
        print(f"host {self.host.number}$ vllmray {' '.join(argv)}\n{done.stdout}{done.stderr}[exit {done.returncode}]")
        return done

    def start(self, *argv: str) -> subprocess.Popen[str]:
        process = self.host.start_vllmray(*argv, cwd=self.folder)
        self.running.append(process)
        return process

    def status(self) -> dict[str, Any]:
        done = self.vllmray("status", "--json")
        data: dict[str, Any] = json.loads(done.stdout)["data"]
        return data

    def containers(self) -> dict[str, str]:
        """Name -> id and time of start, so that a restart shows."""
        lines = self.host.inspected("{{.Name}} {{.Id}} {{.State.StartedAt}}")
        return {line.split(" ", 1)[0].lstrip("/"): line.split(" ", 1)[1] for line in lines}


Users = Callable[[int], User]


@pytest.fixture
def users(clean: Rig, tmp_path: Path) -> Any:
    """users(1) is the user on host 1, with settings for SmolLM2 over two hosts with one simulated GPU each."""
    made: dict[int, User] = {}

    def user(number: int) -> User:
        if number not in made:
            folder = tmp_path / f"host{number}"
            folder.mkdir()
            clean.host(number).environment["XDG_STATE_HOME"] = str(folder / "state")
            made[number] = User(clean.host(number), folder, base_settings(clean))
            made[number].write_settings()
        return made[number]

    yield user
    for someone in made.values():
        for process in someone.running:
            if process.poll() is None:
                process.kill()
            process.communicate()


def finish(process: subprocess.Popen[str], timeout: float) -> tuple[int, str, str]:
    """Wait for a command started in the background: exit code, standard output, standard error."""
    out, err = process.communicate(timeout=timeout)
    print(f"$ {process.args!r}\n{out}{err}[exit {process.returncode}]")
    return process.returncode, out, err


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.2)


def nothing_left(user: User) -> list[str]:
    """Every trace of a cluster on a host: containers, volumes, processes, listening ports."""
    left = [f"container {name}" for name in user.containers()]
    left += [f"volume {name}" for name in user.host.docker("volume", "ls", "--quiet").split()]
    left += [f"process {line}" for line in user.host.processes()]
    left += [f"port {port}" for port in sorted(user.host.listening())]
    return left
