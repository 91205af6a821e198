"""A night of random faults: draws from the matrix for as long as it is told, and looks for what grows.

    .venv/bin/python -m tests.faults.soak --for 3600 [--seed 1]        # root on Debian, as scripts/test

Between faults the cluster must serve again by itself. At the end the endpoint answers, `down` leaves nothing, and what
was counted after the last fault is not more than after the first but for what the faults explain.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.faults import processes
from tests.faults.cluster import Cluster
from tests.faults.faults import CATALOGUE
from tests.faults.processes import MAIN
from tests.faults.row import Row, run
from tests.rig import hosts
from tests.rig.hosts import TestHost

SLACK = {"processes": 4, "ports": 2, "KiB of shared": 64 * 1024, "KiB of /tmp": 64 * 1024, "KiB resident": 8 * 1024}
"""By how much a count may be larger at the end: caches, logs of Ray's own that it rotates."""


def counts(cluster: Cluster) -> dict[str, int]:
    """What could grow, with the memory of vllmray's own programs."""
    found = cluster.traces()
    for host, role in ((cluster.head, "head"), (cluster.head, "engine"), (cluster.worker, "worker")):
        found[f"KiB resident of {role}'s main process"] = sum(resident(pid) for pid in processes.find(host, role, MAIN))
        found[f"MiB on disk of {role}"] = disk(host, role)
    return found


def resident(pid: int) -> int:
    """KiB of memory that a process holds (proc(5), VmRSS)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def disk(host: TestHost, role: str) -> int:
    """MiB that a container has written on its host: its own layer and its log."""
    layer = int(host.docker("inspect", "--size", "--format", "{{.SizeRw}}", f"vllmray-{role}"))
    log = Path(host.docker("inspect", "--format", "{{.LogPath}}", f"vllmray-{role}").strip())
    return (layer + sum(path.stat().st_size for path in log.parent.glob(f"{log.name}*"))) // 1024**2


def grown(first: dict[str, int], last: dict[str, int]) -> list[str]:
    """What is more than it may be."""
    found = []
    for name, count in last.items():
        slack = next((value for prefix, value in SLACK.items() if name.startswith(prefix)), 0)
        slack = 100 if name.startswith("MiB on disk") else slack  # logs, which Docker turns over at 100 MiB
        if count > first.get(name, count) + slack:
            found.append(f"{name}: {first[name]} → {count}")
    return found


def soak(cluster: Cluster, seconds: float, chance: random.Random) -> list[str]:
    """Faults until the time is over; returns what was wrong."""
    drawn = [fault for fault in CATALOGUE if fault.by_hand is None]
    wrong: list[str] = []
    rows: list[Row] = []
    first: dict[str, int] = {}
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        fault = chance.choice(drawn)
        row = run(cluster, fault)
        rows.append(row)
        print(
            f"{time.strftime('%H:%M:%S')} {row.name}: healed after {row.healed} s, client saw {row.errors}", flush=True
        )
        wrong += [f"{row.name}: {problem}" for problem in row.problems]
        first = first or counts(cluster)
        time.sleep(chance.uniform(5, 60))  # a breath, so that not every fault meets an engine just born
    last = counts(cluster)
    print(f"{len(rows)} faults; at the first and at the last:")
    for name in last:
        print(f"    {name}: {first.get(name)} → {last[name]}")
    answer = cluster.client().ask()
    if answer.what != "ok":
        wrong.append(f"at the end the endpoint says {answer.what}")
    return wrong + grown(first, last)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--for", dest="seconds", type=float, required=True, help="seconds")
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    print(f"seed {seed}", flush=True)
    rig = hosts.start(*hosts.USUAL)
    cluster = Cluster(rig, Path(tempfile.mkdtemp(prefix="vllmray-soak-")), clocks=True)
    try:
        cluster.up()
        wrong = soak(cluster, options.seconds, random.Random(seed))
        cluster.down()
        wrong += cluster.left()
    finally:
        cluster.release()
        rig.stop()
    print("\n".join(wrong) or "nothing wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
