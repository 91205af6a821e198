"""How long vllmray's own part takes, beside what it replaces, in one run. Prints a table; needs root on Debian.

    .venv/bin/python -m benchmarks.cli

Each figure is measured beside the command that it is compared with, in turn, and reported as a ratio of medians: the
machine's speed drifts, ratios hold.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.rig import hosts
from tests.rig.image import VLLMRAY
from tests.rig.kinds import DOCKER_20
from tests.rig.settings import ENGINE_FLAGS, base_settings

ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: seconds, medians of ROUNDS."""

    what: str
    ours: float
    beside: str
    theirs: float | None
    bound: str
    holds: bool

    def __str__(self) -> str:
        ratio = f"{self.ours / self.theirs:.3f}" if self.theirs else ""
        theirs = f"{self.theirs:.3f}" if self.theirs else ""
        verdict = "yes" if self.holds else "NO"
        return f"| {self.what} | {self.ours:.3f} | {self.beside} | {theirs} | {ratio} | {self.bound} | {verdict} |"


def seconds(act: Callable[[], object]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def paired(ours: Callable[[], object], theirs: Callable[[], object]) -> tuple[float, float]:
    """Medians of both, run in turn after a warm-up of each."""
    ours()
    theirs()
    rounds = [(seconds(ours), seconds(theirs)) for _ in range(ROUNDS)]
    return statistics.median(a for a, _ in rounds), statistics.median(b for _, b in rounds)


def version(rig: hosts.Rig) -> Row:
    """`vllmray --version` beside `ray --version`, both on host 1 (Ray's in a container that runs already)."""
    host = rig.host(1)
    ours, theirs = paired(
        lambda: subprocess.run([str(VLLMRAY), "--version"], check=True, capture_output=True),
        lambda: host.docker("exec", "vllmray-head", "ray", "--version"),
    )
    bound = "at most 0.10 s, ratio at most 0.05"
    return Row("vllmray --version", ours, "ray --version", theirs, bound, ours <= 0.10 and ours / theirs <= 0.05)


def status(rig: hosts.Rig, folder: Path) -> Row:
    """`vllmray status` of a serving cluster beside `docker exec … ray status`."""
    host = rig.host(1)
    ours, theirs = paired(
        lambda: host.vllmray("status", cwd=folder).check_returncode(),
        lambda: host.docker("exec", "vllmray-head", "ray", "status"),
    )
    return Row("vllmray status", ours, "docker exec … ray status", theirs, "ratio at most 0.6", ours / theirs <= 0.6)


def release(rig: hosts.Rig, folder: Path) -> Row:
    """From the moment that Ray lists the last GPU to the moment that the engine is released.

    Seen from the head container, by a loop that asks Ray's API every 20 ms and notes the time of its first complete
    answer; the engine notes the time of its release itself, in its state file. Both are clocks of one machine. The
    engine has imported vLLM by then, as it has whenever a worker joins later than half a minute after the head.
    """
    host, worker = rig.host(1), rig.host(2)
    delays = []
    for _ in range(ROUNDS):
        host.vllmray("down", cwd=folder).check_returncode()
        worker.vllmray("down", cwd=folder).check_returncode()
        host.vllmray("up", "--role", "head", "--no-wait", *ENGINE_FLAGS, cwd=folder).check_returncode()
        phase(host, "waiting")
        observer = subprocess.Popen(
            [
                "docker",
                "-H",
                host.docker_host,
                "exec",
                "vllmray-head",
                "python3",
                "-c",
                OBSERVER,
                f"{host.address}:6379",
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        worker.vllmray("up", "--role", "worker", "--head-ip", host.address, "--no-wait", cwd=folder).check_returncode()
        joined = float(observer.communicate(timeout=120)[0])
        delays.append(phase(host, "starting") - joined)
    ours = statistics.median(delays)
    return Row("last GPU joined to engine released", ours, "", None, "at most 0.5 s", ours <= 0.5)


OBSERVER = """
import sys, time
from ray.autoscaler.v2.sdk import get_cluster_status
while True:
    status = get_cluster_status(sys.argv[1])
    now = time.time()
    nodes = (*status.active_nodes, *status.idle_nodes)
    if sum(node.total_resources().get("GPU", 0) for node in nodes) >= 2:
        print(now)
        break
    time.sleep(0.02)
"""


def phase(host: hosts.TestHost, wanted: str) -> float:
    """Wait until the engine has reached a phase; returns when it entered it, in unix seconds."""
    read = "import json; s = json.load(open('/tmp/ray/vllmray/engine.json')); print(s['phase'], s['since'])"
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        words = host.docker("exec", "vllmray-head", "python3", "-c", read, check=False).split()
        if words and words[0] == wanted:
            return float(words[1])
        time.sleep(0.2)
    raise RuntimeError(f"the engine did not reach {wanted}")


def main() -> int:
    """Measure everything and print the table; 1 when a bound does not hold."""
    rig = hosts.start(*(DOCKER_20,) * 2)
    try:
        folder = Path(tempfile.mkdtemp(dir=hosts.RUN_FOLDER))
        (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in base_settings(rig).items()))
        head = rig.host(1).start_vllmray("up", "--role", "head", *ENGINE_FLAGS, cwd=folder)
        joining = rig.host(2).vllmray("up", "--role", "worker", "--head-ip", rig.host(1).address, cwd=folder)
        joining.check_returncode()
        head.communicate(timeout=600)
        rows = [version(rig), status(rig, folder), release(rig, folder)]
    finally:
        rig.stop()
    print("| what | seconds | beside | seconds | ratio | bound | holds |\n|---|---|---|---|---|---|---|")
    print("\n".join(str(row) for row in rows))
    return 0 if all(row.holds for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
