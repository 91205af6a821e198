"""The main process of a Ray node's container: runs `ray start --block` and monitors it.

Standard library only; copied into the container, where `ray` is the container's own. It does what Ray itself does not
do. Docker's restart policy starts a node again when its main process exits, so

- a worker waits until the head's port accepts connections, and tries every second; `ray start` would try for up to
  41 s at a time and so rejoin a restarted head late (measured with ray 2.60),
- files of earlier sessions are removed before Ray starts,
- a node that the GCS no longer reports alive exits: Ray's agent on the node reports that (/api/local_raylet_healthz,
  which asks the GCS; ray 2.60, python/ray/dashboard/modules/reporter/healthz_agent.py), and on the head the dashboard
  reports the GCS's own health. Both answer without a token. A raylet or a GCS that hangs, or one that was declared
  dead during a network partition, would otherwise never recover,
- a node whose wall clock was set back exits: Ray's timers use that clock (its PeriodicalRunner has boost's
  deadline_timer), so after a step of an hour back they stop for an hour. The GCS then notices no lost host, and shows
  free GPUs as used (measured with ray 2.60),
- a GCS whose scheduler hangs is ended. That of ray 2.60 hangs for ever when a placement group is removed while one of
  its bundles is being rescheduled off a lost node (ray issue 64693; seen in 2 of 13 losses of a worker): the head exits
  when the engine has requested GPUs and got none although all are free. To make this rare, a restarted worker pauses
  before it joins: by then the engine that lost it has exited, and its placement group is removed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

if __name__ == "__main__":  # in a container: the folder that holds vllmray's package
    sys.path[0] = str(Path(__file__).parents[3])

from vllmray.payload.journal import tell
from vllmray.payload.protocol import FRESH_S, ROOT

LOOK_S = 5.0
ANSWER_S = 4.0
SILENT_S = 30.0
"""A node that was reported alive once, and not for so long since, is ended."""
BACK_S = 30.0
"""How far the wall clock may be set back; Ray's timers stop for as long."""
STUCK_S = 30.0
"""Without an allocation though GPUs are free; Ray normally allocates them within a second."""
BACK_AGAIN_S = 5.0
"""Before a restarted worker joins; an engine that lost it is ended within 2 s where the connection broke."""
CONNECT_S = 2.0
AGAIN_S = 1.0
SWEEP_S = 60.0


def wait_for(address: str) -> None:
    """Wait until that HOST:PORT accepts a connection."""
    host, _, port = address.rpartition(":")
    told = ""
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
            return
        except OSError as error:
            words = f"for the head at {address}: {error.strerror or 'no answer'}"
        if words != told:
            told = words
            tell("waiting", words)
        time.sleep(AGAIN_S)


def pause_when_back(mark: Path) -> None:
    """Sleep BACK_AGAIN_S on every start but a container's first.

    Args:
        mark: a file that is kept as long as the container.
    """
    if mark.exists():
        time.sleep(BACK_AGAIN_S)
    with suppress(OSError):
        mark.touch()


def clear(folder: Path) -> None:
    """Remove what earlier sessions of Ray and vLLM left in their shared temporary folder, which is in memory."""
    for path in folder.glob("*"):
        with suppress(OSError):
            if path.name.startswith("session_") and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.is_symlink() or stat.S_ISSOCK(path.lstat().st_mode):
                path.unlink()


def healthy(port: int, question: str) -> bool | None:
    """Whether Ray's health endpoint on loopback answers 200; None when nothing listens there.

    Args:
        question: local_raylet_healthz of the node's agent, or gcs_healthz of the head's dashboard.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/api/{question}", timeout=ANSWER_S) as reply:
            return bool(reply.status == 200)
    except urllib.error.HTTPError as error:
        error.close()
        return False
    except urllib.error.URLError as error:
        return None if isinstance(error.reason, ConnectionRefusedError) else False
    except OSError:
        return False


def alive(agent_port: int, dashboard_port: int | None) -> bool:
    """Whether the GCS reports this node alive, and on the head whether the GCS itself is healthy."""
    gcs = dashboard_port is None or healthy(dashboard_port, "gcs_healthz")
    return bool(healthy(agent_port, "local_raylet_healthz") and gcs)


def wall_lead() -> float:
    """By how much the wall clock is ahead of the monotonic clock, in seconds."""
    return time.time() - time.monotonic()


def idle_though_asked(engine_state: Path) -> bool:
    """Whether the engine waits for GPUs although all are free in Ray, by its state file (launch.py, watch.py)."""
    try:
        state = json.loads(engine_state.read_text())
        seen = state["ray"]
        fresh = time.clock_gettime(time.CLOCK_BOOTTIME) - state["heartbeat"] < FRESH_S
        asked = fresh and state["phase"] == "starting" and not seen["shortfall"] and seen["pending"]
        return bool(asked and not any(node["gpus_used"] for node in seen["nodes"]))
    except (OSError, ValueError, LookupError, TypeError):
        return False


class RayNode:
    """Ray's process on this node, `ray start --block`.

    Args:
        command: `ray start --block` with all its arguments.
        look: whether the GCS reports the node alive.
        sweep: called every SWEEP_S.
        stuck: whether the GCS allocates no GPU although all are free.
    """

    def __init__(
        self,
        command: list[str],
        look: Callable[[], bool],
        sweep: Callable[[], object],
        stuck: Callable[[], bool] = lambda: False,
    ) -> None:
        self._command = command
        self._look = look
        self._sweep = sweep
        self._stuck = stuck
        self._ended = threading.Event()
        self._told_to_end = False
        self._process: subprocess.Popen[bytes] | None = None

    def end(self) -> None:
        """Called on SIGTERM: Ray drains the node and exits."""
        self._told_to_end = True
        if self._process is None:
            sys.exit(128 + signal.SIGTERM)
        self._process.terminate()

    def run(self) -> int:
        """Run until Ray exits; returns the exit code."""
        self._process = subprocess.Popen(self._command)
        tell("node-started", "Ray is starting")
        threading.Thread(target=self._wait, daemon=True).start()
        why = self._watch()
        if why:
            self._process.kill()
        code = self._process.wait()
        tell("stopped" if self._told_to_end else "node-ended", why or f"Ray exited with exit code {code}")
        return code if code >= 0 else 128 - code

    def _wait(self) -> None:
        self._process.wait()  # type: ignore[union-attr]  # started before
        self._ended.set()

    def _watch(self) -> str | None:
        """Watch the process until it exits (None), or return why it must be ended."""
        alive_at: float | None = None
        swept = moved_at = time.monotonic()
        lead = wall_lead()
        while not self._ended.wait(LOOK_S):
            now = time.monotonic()
            before, lead = lead, wall_lead()
            if before - lead > BACK_S:
                return f"the system clock was set back by {before - lead:.0f} s, which stops Ray's timers for as long"
            if self._look():
                alive_at = now
            elif alive_at is not None and now - alive_at > SILENT_S and not self._told_to_end:
                return f"GCS has not reported this node alive for {now - alive_at:.0f} s"
            if not self._stuck():
                moved_at = now
            elif now - moved_at > STUCK_S:
                return f"Ray's scheduler hangs: no GPU allocated for {now - moved_at:.0f} s although all were free"
            if now - swept > SWEEP_S:
                swept = now
                self._sweep()
        return None


class Segments:
    """Shared memory in a container's own /dev/shm: a segment that no process uses at two checks in a row is removed.

    VLLM's processes leave segments behind when they are killed, and a worker's container keeps running.
    """

    def __init__(self, folder: Path = Path("/dev/shm"), proc: Path = Path("/proc")) -> None:  # nosec B108 # a container's own
        self._folder = folder
        self._proc = proc
        self._idle: set[str] = set()

    def sweep(self) -> None:
        held = self._held()
        idle = {path.name for path in self._folder.glob("*") if str(path) not in held}
        for name in idle & self._idle:
            with suppress(OSError):
                (self._folder / name).unlink()
        self._idle = idle

    def _held(self) -> set[str]:
        """Paths that a process has mapped or open (proc(5))."""
        found: set[str] = set()
        for process in self._proc.glob("[0-9]*"):
            with suppress(OSError):
                for line in (process / "maps").read_text().splitlines():
                    found.add(line.split(maxsplit=5)[-1])
                found |= {os.readlink(descriptor) for descriptor in (process / "fd").iterdir()}
        return found


def main(argv: list[str]) -> int:
    """Run until Ray exits or SIGTERM; returns the exit code."""
    parser = argparse.ArgumentParser(prog="node/main.py")
    parser.add_argument("--head", help="HOST:PORT of the head's GCS, to wait for")
    parser.add_argument("--folder", type=Path, required=True, help="Ray's temporary folder")
    parser.add_argument("--agent-port", type=int, required=True)
    parser.add_argument("--dashboard-port", type=int, help="on the head: its dashboard, to monitor the GCS too")
    parser.add_argument("--engine-state", type=Path, help="on the head: the state file that launch.py writes")
    parser.add_argument("--own-memory", action="store_true", help="no other container uses /dev/shm")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(argv)
    sweep = Segments().sweep if options.own_memory else lambda: None
    stuck = partial(idle_though_asked, options.engine_state) if options.engine_state else lambda: False
    node = RayNode(options.command, lambda: alive(options.agent_port, options.dashboard_port), sweep, stuck)
    signal.signal(signal.SIGTERM, lambda *_: node.end())
    clear(options.folder)
    if options.head:
        home = ROOT / "home"  # in a container the only folder there that its user can write
        pause_when_back((home if home.is_dir() else ROOT) / "has-run")
        wait_for(options.head)
    return node.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
