"""The engine container's view of the cluster, and the file with the engine's own state.

Standard library only; part of what runs in the engine's container. It observes Ray through watch.py, a child process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from vllmray.payload.journal import tell

WATCH = Path(__file__).parents[1] / "node/watch.py"
BEAT_S = 2.0
AGAIN_S = 2.0


class StateFile:
    """The state file, replaced atomically at each change so that a reader never sees half of it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._values: dict[str, Any] = {"deaths": 0, "missing_since": None}

    def phase(self, phase: str, detail: str = "") -> None:
        """Enter a phase; `since` moves only when the phase does, and nothing is written when nothing changed."""
        if (self._values.get("phase"), self._values.get("detail")) == (phase, detail):
            return
        since = self._values.get("since") if self._values.get("phase") == phase else time.time()
        self.set(phase=phase, detail=detail, since=since)

    @property
    def current(self) -> str:
        """The phase."""
        return str(self._values.get("phase"))

    def set(self, **values: Any) -> None:
        with self._lock, suppress(OSError):  # a full disk must not end the engine; `status` asks Ray then
            self._values.update(values, heartbeat=time.clock_gettime(time.CLOCK_BOOTTIME))
            self._path.parent.mkdir(parents=True, exist_ok=True)
            new = self._path.with_suffix(".new")
            new.write_text(json.dumps(self._values))
            new.replace(self._path)


class Gate:
    """What watch.py reports, copied into the state file; open while the GPUs are available and unused.

    Args:
        watch: starts a watch.py; called again whenever one exited.
        changed: set at each change.
    """

    def __init__(self, state: StateFile, watch: Callable[[], subprocess.Popen[str]], changed: threading.Event) -> None:
        self._state = state
        self._start = watch
        self._watch = watch()
        self._changed = changed
        self.nodes: dict[str, str] = {}
        """Ray nodes alive at the last observation: id to description."""
        self.used: set[str] = set()
        """Ids of the nodes whose GPUs are in use."""
        self.actors: int | None = None
        """How many of vLLM's actors are alive; None where Ray does not report it."""
        self._missing_since: float | None = None
        self.missing = "no answer from Ray yet"
        """What the cluster lacks; empty when it lacks nothing."""
        self.held = ""
        """The GPUs in use, in words; empty when there are none."""
        self.head: str | None = None
        """The id of the head's Ray node; None before Ray answered."""
        threading.Thread(target=self._follow, daemon=True).start()

    @property
    def pid(self) -> int:
        """Process id of the watch.py that runs."""
        return self._watch.pid

    def _follow(self) -> None:
        while True:
            lines: IO[str] = self._watch.stdout  # type: ignore[assignment]  # Popen was given a pipe
            for line in lines:
                # Other programs' output may be among the lines, even valid JSON such as a number or null.
                with suppress(ValueError, LookupError, TypeError, AttributeError):
                    self._see(json.loads(line))
            self._see({"error": f"watch.py exited with exit code {self._watch.wait()}"})
            time.sleep(AGAIN_S)
            self._watch = self._start()

    def _see(self, seen: dict[str, Any]) -> None:
        missing = seen.get("error") or seen["shortfall"]
        if missing and not self.missing:
            self._missing_since = time.time()
        self._missing_since = self._missing_since if missing else None
        self.missing = missing
        if "error" not in seen:
            nodes = seen["nodes"]
            self.head = next((node["id"] for node in nodes if node["is_head"]), None)
            users = [node for node in nodes if node["gpus_used"]]
            self.used = {node["id"] for node in users}
            words = ", ".join(f"{node['gpus_used']:g} on {_name(node)}" for node in users)
            self.held = f"GPUs still in use in Ray: {words}" if words else ""
            self.actors = seen.get("actors")
            self._tell_of({node["id"]: f"{_name(node)}, {_gpus(node)}" for node in nodes})
        self._state.set(ray=seen, missing_since=self._missing_since)
        self._changed.set()

    def _tell_of(self, nodes: dict[str, str]) -> None:
        for node in nodes.keys() - self.nodes.keys():
            tell("joined", nodes[node])
        for node in self.nodes.keys() - nodes.keys():
            tell("lost", self.nodes[node])
        self.nodes = nodes

    @property
    def closed_by(self) -> str:
        """Why no engine can start now; empty when one can."""
        return self.missing or self.held


def _name(node: dict[str, Any]) -> str:
    return str(node["ip"] or node["id"][:12])


def _gpus(node: dict[str, Any]) -> str:
    return f"{node['gpus_total']:g} GPU" + ("" if node["gpus_total"] == 1 else "s")


def start_watch(address: str, gate: str) -> subprocess.Popen[str]:
    """Start watch.py as a child that exits with this process: its standard input is a pipe that only this one has."""
    options = ["--address", address, "--gate", gate, "--beat", str(BEAT_S), "--actors", "--stdin"]
    argv = [sys.executable, str(WATCH), *options]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
