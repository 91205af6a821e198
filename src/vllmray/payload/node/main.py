"""The main process of a Ray node's container: `ray start --block`, and an eye on it.

Standard library only; copied into the container, where `ray` is the container's own. It is there for what Ray itself
does not do: Docker's restart policy starts a node again when its main process ends, so

- a worker waits until the head's port accepts connections, and asks every second; `ray start` would ask for up to 41 s
  at a time and so come back late to a head that was restarted (measured with ray 2.60),
- what earlier sessions left is taken away before,
- a node that the cluster no longer takes for alive ends: Ray's agent on the node says so (/api/local_raylet_healthz,
  which asks the GCS; ray 2.60, python/ray/dashboard/modules/reporter/healthz_agent.py), and on the head its dashboard
  says it of the GCS. Both answer without a token. A raylet or a GCS that hangs,
  or one that was declared dead while the network was cut, would otherwise stay as it is for ever,
- a node whose wall clock was set back ends: Ray's timers go by that clock (its PeriodicalRunner has boost's
  deadline_timer), so after a step of an hour back they rest for an hour. The GCS then notices no lost host, and shows
  GPUs as used that are free (measured with ray 2.60),
- a GCS whose scheduler hangs ends. That of ray 2.60 does for ever when a placement group is removed while a bundle of
  it is being moved off a lost node (ray issue 64693; seen in 2 of 13 losses of a worker): the head ends when the engine
  has asked for GPUs and got none, though all are free. So that it seldom comes to this, a worker that comes back
  pauses: by then the engine that lost it has ended, and its placement group with it.
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

if __name__ == "__main__":  # in a container, where what it needs of vllmray lies beside it
    sys.path[0] = str(Path(__file__).parents[3])

from vllmray.payload.journal import tell
from vllmray.payload.protocol import FRESH_S, ROOT

LOOK_S = 5.0
ANSWER_S = 4.0
SILENT_S = 30.0
"""A node that was taken for alive once, and has not been for so long, is ended."""
BACK_S = 30.0
"""By how much the clock may go back: for so long Ray's timers may rest."""
STUCK_S = 30.0
"""GPUs that are free and asked for are given out within a second."""
BACK_AGAIN_S = 5.0
"""An engine that lost a worker is ended within 2 s where the connection broke."""
CONNECT_S = 2.0
AGAIN_S = 1.0
SWEEP_S = 60.0


def wait_for(address: str) -> None:
    """Returns when that HOST:PORT accepts a connection."""
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
    """On every start but a container's first.

    Args:
        mark: a file that stays as long as the container.
    """
    if mark.exists():
        time.sleep(BACK_AGAIN_S)
    with suppress(OSError):
        mark.touch()


def clear(folder: Path) -> None:
    """Take away what earlier sessions of Ray and vLLM left in the folder that they meet in; it is in memory."""
    for path in folder.glob("*"):
        with suppress(OSError):
            if path.name.startswith("session_") and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.is_symlink() or stat.S_ISSOCK(path.lstat().st_mode):
                path.unlink()


def healthy(port: int, question: str) -> bool | None:
    """What Ray answers on loopback; None when nothing listens there.

    Args:
        question: local_raylet_healthz of the node's agent, or gcs_healthz of the head's dashboard.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/api/{question}", timeout=ANSWER_S) as reply:
            return bool(reply.status == 200)
    except urllib.error.HTTPError:
        return False
    except urllib.error.URLError as error:
        return None if isinstance(error.reason, ConnectionRefusedError) else False
    except OSError:
        return False


def alive(agent_port: int, dashboard_port: int | None) -> bool:
    """Whether the cluster takes this node for alive, and on the head whether there is a cluster."""
    gcs = dashboard_port is None or healthy(dashboard_port, "gcs_healthz")
    return bool(healthy(agent_port, "local_raylet_healthz") and gcs)


def wall_lead() -> float:
    """By how much the wall clock is ahead of the one that nobody sets, in seconds."""
    return time.time() - time.monotonic()


def idle_though_asked(engine_state: Path) -> bool:
    """Whether the engine waits for GPUs of Ray that are all free, by what it last said (launch.py, watch.py)."""
    try:
        state = json.loads(engine_state.read_text())
        seen = state["ray"]
        fresh = time.clock_gettime(time.CLOCK_BOOTTIME) - state["heartbeat"] < FRESH_S
        asked = fresh and state["phase"] == "starting" and not seen["shortfall"] and seen["pending"]
        return bool(asked and not any(node["gpus_used"] for node in seen["nodes"]))
    except (OSError, ValueError, LookupError, TypeError):
        return False


class RayNode:
    """Ray's own process here.

    Args:
        command: `ray start --block` with all its arguments.
        look: whether the cluster takes the node for alive.
        sweep: called now and then.
        stuck: whether the GCS gives out nothing.
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
        """Called on SIGTERM: Ray drains the node, and ends."""
        self._told_to_end = True
        if self._process is None:
            sys.exit(128 + signal.SIGTERM)
        self._process.terminate()

    def run(self) -> int:
        """Until Ray ended; returns the exit code."""
        self._process = subprocess.Popen(self._command)
        tell("node-started", "Ray is starting")
        threading.Thread(target=self._wait, daemon=True).start()
        why = self._watch()
        if why:
            self._process.kill()
        code = self._process.wait()
        tell("stopped" if self._told_to_end else "node-ended", why or f"Ray ended, exit code {code}")
        return code if code >= 0 else 128 - code

    def _wait(self) -> None:
        self._process.wait()  # type: ignore[union-attr]  # started before
        self._ended.set()

    def _watch(self) -> str | None:
        """Until the process ended; or why it must be ended."""
        alive_at: float | None = None
        swept = moved_at = time.monotonic()
        lead = wall_lead()
        while not self._ended.wait(LOOK_S):
            now = time.monotonic()
            before, lead = lead, wall_lead()
            if before - lead > BACK_S:
                return f"the clock went back by {before - lead:.0f} s, and for as long Ray's timers would rest"
            if self._look():
                alive_at = now
            elif alive_at is not None and now - alive_at > SILENT_S and not self._told_to_end:
                return f"GCS has not reported this node alive for {now - alive_at:.0f} s"
            if not self._stuck():
                moved_at = now
            elif now - moved_at > STUCK_S:
                return f"Ray's scheduler hangs: for {now - moved_at:.0f} s it gave out no GPU, though all were free"
            if now - swept > SWEEP_S:
                swept = now
                self._sweep()
        return None


class Segments:
    """Shared memory of a container's own /dev/shm: what nobody holds at two looks is taken away.

    VLLM's processes leave segments behind when they are killed, and a worker's container goes on running.
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
    """Run until Ray ended or SIGTERM; returns the exit code."""
    parser = argparse.ArgumentParser(prog="node/main.py")
    parser.add_argument("--head", help="HOST:PORT of the head's GCS; wait for it")
    parser.add_argument("--folder", type=Path, required=True, help="Ray's temporary folder")
    parser.add_argument("--agent-port", type=int, required=True)
    parser.add_argument("--dashboard-port", type=int, help="of the head; look after its GCS too")
    parser.add_argument("--engine-state", type=Path, help="on the head: where launch.py says what the engine does")
    parser.add_argument("--own-memory", action="store_true", help="shared memory is this container's alone")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(argv)
    sweep = Segments().sweep if options.own_memory else lambda: None
    stuck = partial(idle_though_asked, options.engine_state) if options.engine_state else lambda: False
    node = RayNode(options.command, lambda: alive(options.agent_port, options.dashboard_port), sweep, stuck)
    signal.signal(signal.SIGTERM, lambda *_: node.end())
    clear(options.folder)
    if options.head:
        home = ROOT / "home"  # in a container what its user can write, where only root can write beside it
        pause_when_back((home if home.is_dir() else ROOT) / "has-run")
        wait_for(options.head)
    return node.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
