"""Two hosts with one model over both, as two people at their shells made them, and what can be seen of it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.client import Client
from tests.rig import wallclock
from tests.rig.hosts import Rig, TestHost, run
from tests.rig.settings import base_settings

# Short batches, since the engine's warm-up takes as long as its longest batch; the rest as in the other tests.
ENGINE_FLAGS = ("--", "--max-num-seqs", "8", "--max-num-batched-tokens", "256")
STALL_S = 20
ROLES = {1: ("head", "engine"), 2: ("worker",)}


@dataclass(slots=True)
class Cluster:
    """Host 1 has head and engine, host 2 the worker."""

    rig: Rig
    folder: Path
    clocks: bool = False
    """Whether the hosts' wall clocks can be set, each by itself."""
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def head(self) -> TestHost:
        return self.rig.host(1)

    @property
    def worker(self) -> TestHost:
        return self.rig.host(2)

    def user_folder(self, number: int) -> Path:
        """Where the user of that host is, with an .env file."""
        folder = self.folder / f"host{number}"
        if not folder.exists():
            # A disk of its own for the cache, so that it can be filled without filling the machine's.
            (folder / "cache").mkdir(parents=True)
            run("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder / "cache"))
            more = {"VLLMRAY_STALL_TIMEOUT": str(STALL_S), "VLLMRAY_MODEL_CACHE_DIR": str(folder / "cache")}
            settings = base_settings(self.rig) | more | self.settings
            if self.clocks:
                clock = wallclock.make(folder / "clock")
                settings["VLLMRAY_VOLUMES"] = f"{clock}:{wallclock.PLACE}"
                settings["VLLMRAY_ENV"] += "".join(f",{name}={value}" for name, value in wallclock.VARIABLES.items())
            (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
            self.rig.host(number).environment["XDG_STATE_HOME"] = str(folder / "state")
        return folder

    def vllmray(self, number: int, *argv: str, timeout: float = 700) -> subprocess.CompletedProcess[str]:
        """A command as that host's user types it."""
        return self.rig.host(number).vllmray(*argv, cwd=self.user_folder(number), timeout=timeout)

    def up(self) -> None:
        """Both hosts; returns when the endpoint answered."""
        with ThreadPoolExecutor(2) as pool:
            head = pool.submit(self.vllmray, 1, "up", "--role", "head", *ENGINE_FLAGS)
            worker = pool.submit(self.vllmray, 2, "up", "--role", "worker", "--head-ip", self.head.address)
            for done in (worker.result(), head.result()):
                assert done.returncode == 0, done.stdout + done.stderr

    def down(self) -> None:
        for number in ROLES:
            done = self.vllmray(number, "down")
            assert done.returncode == 0, done.stdout + done.stderr

    def left(self) -> list[str]:
        """What is still on the hosts; nothing, after down."""
        found = []
        for host in (self.head, self.worker):
            things = [*host.processes(), *(f"port {port}" for port in host.listening())]
            things += [f"container {name}" for name in host.docker("ps", "--all", "--quiet").split()]
            things += [f"volume {name}" for name in host.docker("volume", "ls", "--quiet").split()]
            found += [f"left on host {host.number}: {thing}" for thing in things]
        return found

    def release(self) -> None:
        """Let go of what it took of this machine."""
        for path in self.folder.glob("host*/cache"):
            run("umount", "-l", str(path))

    def client(self) -> Client:
        return Client(f"http://{self.head.address}:8000/v1", str(self.rig.model))

    def status(self, number: int) -> dict[str, Any]:
        """What `status --json` says there; empty where there is no cluster, or no daemon."""
        done = self.vllmray(number, "status", "--json", timeout=60)
        data: dict[str, Any] = json.loads(done.stdout).get("data", {}) if done.stdout else {}
        return data

    def problem(self) -> str:
        """What the head's host says is wrong, in a line; empty when nothing is."""
        done = self.vllmray(1, "status", timeout=60)
        if done.returncode == 0:
            return ""
        return (done.stdout or done.stderr).splitlines()[0].partition("; ")[2] or done.stderr.splitlines()[0]

    def serves(self) -> bool:
        return bool(self.status(1).get("ready")) and bool(self.status(2).get("ready"))

    def events(self, since: float) -> list[dict[str, Any]]:
        """Rows of `events` on both hosts since a moment in unix seconds, in order."""
        rows = []
        for number in ROLES:
            done = self.vllmray(number, "events", "--json", timeout=60)
            if done.returncode == 0:
                rows += [row for row in json.loads(done.stdout)["data"]["events"] if row["at"] >= since]
        return sorted(rows, key=lambda row: float(row["at"]))

    def traces(self) -> dict[str, int]:
        """What there is on both hosts that could grow: processes, containers, volumes, ports, shared memory, disk."""
        found: dict[str, int] = {}
        for number, roles in ROLES.items():
            host = self.rig.host(number)
            found[f"processes on host {number}"] = len(host.processes())
            found[f"ports on host {number}"] = len([port for port in host.listening() if port < 32768])
            found[f"containers on host {number}"] = len(host.docker("ps", "--all", "--quiet").split())
            found[f"volumes on host {number}"] = len(host.docker("volume", "ls", "--quiet").split())
            for role in roles:
                kib = host.docker("exec", f"vllmray-{role}", "sh", "-c", "du -sk /dev/shm /tmp/ray | cut -f1").split()
                found[f"KiB of shared memory in {role}"], found[f"KiB of /tmp/ray in {role}"] = map(int, kib[:2])
        return found


def eventually(condition: Callable[[], bool], seconds: float, pause: float = 0.5) -> bool:
    """Whether it came true within that time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True
