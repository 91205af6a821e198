"""Someone on a machine without Docker, with an empty home directory, and what a cluster may not leave there."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.rig.model import CPU_PYTHON, model_folder


@dataclass(slots=True)
class NativeUser:
    """The command is the one in the environment that scripts/demo makes, so its nodes run there too."""

    home: Path
    before: set[str]

    def command(self, *argv: str) -> list[str]:
        return [str(CPU_PYTHON.with_name("vllmray")), *argv]

    @property
    def environment(self) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if name.startswith("PIP_") or name in ("PATH", "ONEDNN_MAX_CPU_ISA")
        }
        # No daemon answers there, whatever this machine has: a command must find by itself that the nodes are here.
        return kept | {"HOME": str(self.home), "LC_ALL": "C.UTF-8", "DOCKER_HOST": f"unix://{self.home}/no-docker.sock"}

    def vllmray(self, *argv: str, stdin: str = "", timeout: float = 600) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(*argv),
            env=self.environment,
            cwd=self.home,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        print(f"$ vllmray {' '.join(argv)}\n{done.stdout}{done.stderr}[exit {done.returncode}]")
        return done

    def write_settings(self, **more: str) -> None:
        """SmolLM2 in two stages with one simulated GPU each, and what else is wanted."""
        settings = {
            "MODEL_NAME": str(model_folder()),
            "TENSOR_PARALLEL_SIZE": "1",
            "PIPELINE_PARALLEL_SIZE": "2",
            "MAX_MODEL_LEN": "1024",
            "VLLMRAY_ACCELERATOR": "cpu",
            "VLLMRAY_OBJECT_STORE_MEMORY": "100m",
            "VLLMRAY_RUNTIME": "native",
        } | more
        (self.home / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))

    def status(self, *argv: str) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(self.vllmray("status", "--json", *argv).stdout)["data"]
        return data

    def node_folder(self, name: str) -> Path:
        return next((self.home / ".local/state/vllmray/native").glob(f"*/nodes/{name}"))

    def process(self, name: str, which: str) -> psutil.Process:
        """A node's own process (main) or its supervisor, as its folder says."""
        state = json.loads((self.node_folder(name) / "state.json").read_text())
        return psutil.Process(state[which]["pid"])

    def left(self) -> list[str]:
        """Every trace that was not there before: processes, listening ports, shared memory, folders."""
        return sorted(traces(self.home) - self.before)


def traces(home: Path) -> set[str]:
    """What a cluster could leave; ports that programs of others listen on are none of it."""
    found = {f"shared memory {path.name}" for path in Path("/dev/shm").iterdir()}
    found |= {f"folder {path}" for path in Path("/tmp").glob(f"vllmray-{os.getuid()}/*")}
    found |= {f"folder {path}" for path in home.glob(".local/state/vllmray/native/*/*/*")}
    others = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            line = " ".join(process.cmdline())
            ours = str(CPU_PYTHON.parents[1]) in line or line.startswith(("ray::", "ray-dashboard", "VLLM::"))
            if not ours:
                others.add(process.pid)
            elif process.status() != psutil.STATUS_ZOMBIE:
                found.add(f"process {process.pid} {line[:100]}")
    for connection in psutil.net_connections("inet"):
        if connection.status == psutil.CONN_LISTEN and connection.pid not in others:
            found.add(f"port {getattr(connection.laddr, 'port', 0)}")
    return found


@pytest.fixture
def user(tmp_path: Path) -> Iterator[NativeUser]:
    if not CPU_PYTHON.exists():
        pytest.fail("there is no .venv-cpu: scripts/test makes it, and so does scripts/demo")
    made = NativeUser(tmp_path, traces(tmp_path))
    yield made
    made.vllmray("down", "--all", "--runtime", "native")
