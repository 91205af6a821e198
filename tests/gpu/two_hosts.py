"""2 and 5: a GPU a host, and the loss of a worker."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from tests.gpu import machine
from tests.gpu.engine import Engine, answers, engine
from tests.gpu.places import Place, complete
from tests.gpu.results import Row
from tests.gpu.setting import Setting, nothing_left


def two_hosts(setting: Setting) -> list[Row]:
    """2 and 5: a GPU a host, and the loss of a worker while it serves."""
    joined = Row("2", f"two hosts, Docker, {setting.small.name}, PP {setting.two_hosts.pipeline}")
    lost = Row("5", "a worker's container killed while its engine serves")
    model = setting.model(setting.small)
    apart = {"NCCL_P2P_DISABLE": "1", "NCCL_SHM_DISABLE": "1"}  # as between machines
    where = replace(setting, environment={**setting.environment, **apart})
    first, second = (
        where.place(f"host{host.number}", host, VLLMRAY_GPUS=gpus)
        for host, gpus in zip(where.hosts, where.gpus_of_two, strict=True)
    )
    began = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        worker = pool.submit(_join, second, first, model)
        with engine(first, model, where.two_hosts, joined, where.after) as found:
            if not found:
                second.interrupt()
            done = worker.result()
            joined.must(done == 0, f"the worker's up ended with {done}")
            if found:
                joined.saw(f"both up to the first token in {time.monotonic() - began:.1f} s")
                answers(found, joined)
                nodes = found.place.status()["nodes"]
                joined.must(len(nodes) == 2, f"{len(nodes)} nodes")
                joined.must(second.status()["ready"], "the worker's status is not ready")
                _lose_worker(found, where, lost)
            else:
                lost.must(False, "there was no engine")
    joined.must(second.vllmray("down").code == 0, "the worker's down failed")
    nothing_left(where, joined)
    return [joined, lost]


def _join(place: Place, head: Place, model: Path) -> int:
    """The worker's `up`, with the token that the head made."""
    deadline = time.monotonic() + 120
    token = head.folder / "token"
    while head.vllmray("token").code and time.monotonic() < deadline:
        time.sleep(1)
    token.write_text(head.vllmray("token").stdout)
    token.chmod(0o600)
    argv = ("up", "--role", "worker", "--head-ip", str(head.settings["VLLMRAY_NODE_IP"]), "--token-file", str(token))
    return place.vllmray(*argv, "--model", str(model)).code


def _lose_worker(found: Engine, setting: Setting, row: Row) -> None:
    host = setting.hosts[1]
    endpoint, key = found.endpoint(), found.key()
    over = threading.Event()
    answered: list[tuple[float, bool]] = []

    def ask() -> None:
        while not over.is_set():
            good = False
            with suppress(OSError):
                good = bool(complete(endpoint, str(found.model), key, tokens=8, timeout=60))
            answered.append((time.monotonic(), good))
            over.wait(0.2)

    asker = threading.Thread(target=ask, daemon=True)
    asker.start()
    time.sleep(3)
    began = time.monotonic()
    os.kill(int(host.docker("inspect", "--format", "{{.State.Pid}}", "vllmray-worker")), signal.SIGKILL)
    freed = None
    back = None
    while back is None and time.monotonic() < began + 400:
        time.sleep(0.2)
        if freed is None and setting.is_real and max(gpu.used for gpu in machine.gpus()) < setting.memory / 10:
            freed = time.monotonic() - began
        bad = [when for when, good in list(answered) if not good and when > began]
        back = next((when - began for when, good in list(answered) if bad and good and when > bad[-1]), None)
        if back is not None and not found.place.status()["ready"]:
            back = None
    over.set()
    asker.join(90)
    if row.must(back is not None, "no answer within 400 s"):
        row.saw(f"the next answer after {back:.1f} s")
    if freed is not None:
        row.saw(f"the memory of both GPUs free after {freed:.1f} s")
    events = json.loads(found.place.vllmray("events", "--since", "10m", "--json").stdout)["data"]["events"]
    row.saw(
        "events: "
        + ", ".join(f"{event['kind']} ({event['text']})" for event in events if event["kind"] in ("died", "ready"))[
            :300
        ]
    )
