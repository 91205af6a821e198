"""What recovery costs beside vLLM's own start, and what watching costs. Root on Debian; about twenty minutes.

    .venv/bin/python -m benchmarks.recovery

Two hosts, one model over both. In turn, ROUNDS times: bare vLLM on the Ray cluster that runs (the server's own command
line, from its start to its first correct answer); a worker whose connections break at once (its container killed), from
the kill to the next correct answer; a worker that falls silent (its cable cut, then everything on its host killed, then
both back after BACK_S), from the cut. What is left after bare vLLM's time is taken off is ours. Then the processor time
of vllmray's own programs over IDLE_S seconds without a request.
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.faults import processes
from tests.faults.cluster import ENGINE_FLAGS, Cluster, eventually
from tests.faults.processes import MAIN, power_off
from tests.rig import cable, hosts
from tests.rig.kinds import DOCKER_20

ROUNDS = 3
BACK_S = 3.0
IDLE_S = 120.0
REFUSED_BOUND_S, SILENT_BOUND_S, IDLE_BOUND = 5.0, 15.0, 0.5
BARE_PORT = 8001
# In the head's container, where the driver finds its raylet by itself; with the environment that the engine has.
BARE = """
set -a; . /tmp/ray/bare.env; set +a
exec python3 -m vllm.entrypoints.openai.api_server {arguments} > /tmp/ray/bare.log 2>&1
"""


def answered(cluster: Cluster, port: int) -> bool:
    client = cluster.client()
    client.url = client.url.replace(":8000/", f":{port}/")
    return client.ask().what == "ok"


def bare_start(cluster: Cluster) -> float:
    """Seconds from vLLM's command line to its first correct answer, while our engine is stopped."""
    head = cluster.head
    head.docker("stop", "vllmray-engine")
    assert eventually(lambda: cluster.status(2).get("ready") is True, 60)
    argv = head.docker("inspect", "--format", "{{range .Args}}{{println .}}{{end}}", "vllmray-engine").splitlines()
    arguments = [word for word in argv[argv.index("--") + 1 :] if word]
    arguments = [f"--port={BARE_PORT}" if word.startswith("--port=") else word for word in arguments]
    arguments = [word for word in arguments if not word.startswith("--middleware")]
    quoted = " ".join(f"'{word}'" for word in arguments)
    head.docker("exec", "vllmray-head", "sh", "-c", f"echo RAY_ADDRESS={head.address}:6379 > /tmp/ray/bare.env")
    began = time.monotonic()
    head.docker("exec", "--detach", "vllmray-head", "sh", "-c", BARE.format(arguments=quoted))
    assert eventually(lambda: answered(cluster, BARE_PORT), 400, pause=0.2), "bare vLLM did not start"
    took = time.monotonic() - began
    for pid in processes.find(head, "head", processes.BARE):
        os.kill(pid, signal.SIGTERM)
    assert eventually(lambda: not processes.find(head, "head", processes.BARE), 60)
    head.docker("start", "vllmray-engine")
    assert eventually(cluster.serves, 400)
    return took


def recovery(cluster: Cluster, *, silent: bool) -> float:
    """Seconds from a worker's loss to the next correct answer."""
    client = cluster.client()
    client.start()
    assert eventually(lambda: client.last_good() > 0, 60)
    began = time.monotonic()
    if silent:
        cable.cut(cluster.worker.number)
        power_off(cluster.worker)
        time.sleep(BACK_S)
        cable.mend(cluster.worker.number)
        cluster.worker.start_daemon()
    else:
        os.kill(processes.main_process(cluster.worker, "worker"), signal.SIGKILL)
    # The last answer of the engine that was: an outage has to come before an answer counts.
    assert eventually(lambda: any(answer.what != "ok" for answer in client.since(began)), 60), "no outage"
    bad = next(answer.came for answer in client.since(began) if answer.what != "ok")
    assert eventually(lambda: client.last_good() > bad, 400), f"no recovery: {cluster.problem()}"
    took = next(answer.came for answer in client.since(bad) if answer.what == "ok") - began
    client.stop()
    assert eventually(cluster.serves, 120)
    return took


def idle(cluster: Cluster) -> dict[str, float]:
    """Percent of a core that each of vllmray's own programs takes while nobody asks anything."""
    watched = {
        f"{role}: {name}": pid
        for host, role in ((cluster.head, "engine"), (cluster.head, "head"), (cluster.worker, "worker"))
        for name, pattern in (("main", MAIN), ("watch", processes.WATCH))
        for pid in processes.find(host, role, pattern)
    }
    time.sleep(30)
    before = {name: _ticks(pid) for name, pid in watched.items()}
    time.sleep(IDLE_S)
    hertz = os.sysconf("SC_CLK_TCK")
    return {name: 100 * (_ticks(pid) - before[name]) / hertz / IDLE_S for name, pid in watched.items()}


def _ticks(pid: int) -> int:
    """Processor time of a process in ticks (proc(5), utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def line(what: str, value: str, bound: str, *, holds: bool) -> None:
    print(f"| {what} | {value} | {bound} | {'yes' if holds else 'NO'} |", flush=True)


def main() -> int:
    rig = hosts.start(*(DOCKER_20,) * 2)
    cluster = Cluster(
        rig, Path(tempfile.mkdtemp(prefix="vllmray-recovery-")), settings={"VLLMRAY_STALL_TIMEOUT": "120"}
    )
    try:
        print("engine flags:", " ".join(ENGINE_FLAGS), flush=True)
        cluster.up()
        bare, refused, silent = [], [], []
        for _ in range(ROUNDS):
            bare.append(bare_start(cluster))
            refused.append(recovery(cluster, silent=False))
            silent.append(recovery(cluster, silent=True))
            print(f"bare {bare[-1]:.1f} s, refused {refused[-1]:.1f} s, silent {silent[-1]:.1f} s", flush=True)
        usual = statistics.median(bare)
        print("| what | measured | bound | holds |\n|---|---|---|---|")
        for name, took, bound in (("refused at once", refused, REFUSED_BOUND_S), ("silent", silent, SILENT_BOUND_S)):
            own = statistics.median(took) - usual
            words = f"{statistics.median(took):.1f} s, less bare vLLM's {usual:.1f} s: {own:.1f} s"
            line(f"worker lost, {name}, to the next answer", words, f"{bound:.0f} s", holds=own <= bound)
        shares = idle(cluster)
        total = sum(share for name, share in shares.items() if name.startswith("engine"))
        words = ", ".join(f"{name} {share:.2f}" for name, share in shares.items())
        line("processor while idle, % of a core", words, f"gate and watchdog {IDLE_BOUND}", holds=total <= IDLE_BOUND)
        cluster.down()
    finally:
        cluster.release()
        rig.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
