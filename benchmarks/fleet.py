"""Four hosts from nothing to an answer: one cluster file, beside a script that types the commands by role over ssh.

    .venv/bin/python -m benchmarks.fleet [--rate 500]

Root on Debian, after scripts/test has made the node image; about six minutes. The model is on a stand-in hub, behind a
link of that many Mbit/s, and on no host; every host has the image. The script does what the quickstart says: the head,
its token to each host, each worker in turn, and the wait. Both ways run once, in that order; nothing is left.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from tests.e2e.desk import Desk
from tests.e2e.test_cluster import ask
from tests.rig import hosts
from tests.rig.hosts import DESK, DESK_ADDRESS, Rig, run
from tests.rig.hub import Model, serving
from tests.rig.image import VLLMRAY
from tests.rig.kinds import DOCKER_20, DOCKER_28_CONTAINERD
from tests.rig.settings import ENGINE_FLAGS

from vllmray.demo.run import EXPECTED

MODEL = "org/smol"
HOSTS = (1, 2, 3, 4)
FLAGS = ENGINE_FLAGS[1:]
PHASE = re.compile(r"^gpu\d: (\S+) done \((?:(\d+) min ?)?(?:(\d+) s)?\)", re.MULTILINE)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=int, default=500, help="Mbit/s of the hub's link")
    rate = parser.parse_args().rate
    rig = hosts.start(DOCKER_20, DOCKER_28_CONTAINERD, DOCKER_20, DOCKER_20)
    run("tc", "qdisc", "add", "dev", DESK, "root", "tbf", "rate", f"{rate}mbit", "burst", "1mb", "latency", "50ms")
    try:
        with tempfile.TemporaryDirectory() as folder, serving(DESK_ADDRESS) as hub:
            files = {path.name: path.read_bytes() for path in rig.model.iterdir() if path.name != "SHA256SUMS"}
            hub.models[MODEL] = Model(files)
            by_file, phases = one_file(rig, hub.url, Path(folder) / "desk")
            by_role = script(rig, hub.url, Path(folder) / "script")
    finally:
        rig.stop()
    ratio = by_file / by_role
    print("| what | seconds | beside | seconds | ratio | bound | holds |\n|---|---|---|---|---|---|---|")
    print(
        f"| init, up | {by_file:.1f} | commands by role over ssh | {by_role:.1f} | {ratio:.2f} | 0.8 | "
        f"{'yes' if ratio <= 0.8 else 'no'} |\n\n| phase | seconds, the slowest host |\n|---|---|"
    )
    for name, seconds in phases.items():
        print(f"| {name} | {seconds} |")


def settings(rig: Rig, hub: str, folder: Path) -> Desk:
    folder.mkdir()
    desk = Desk(rig, folder)
    desk.write_settings(MODEL_NAME=MODEL, HF_ENDPOINT=hub, VLLMRAY_ENV="VLLM_CPU_KVCACHE_SPACE=1")
    return desk


def one_file(rig: Rig, hub: str, folder: Path) -> tuple[float, dict[str, int]]:
    """Seconds to the answer, and those of each phase."""
    desk = settings(rig, hub, folder)
    began = time.monotonic()
    assert desk.vllmray("init", "--hosts", ",".join(f"gpu{number}" for number in HOSTS)).returncode == 0
    text = desk.file.read_text()
    for number in HOSTS:
        text = text.replace(
            f'address = "gpu{number}"', f'address = "gpu{number}"\nmodel_cache = "{folder}/cache{number}"'
        )
    desk.file.write_text(text)
    up = desk.vllmray("up", "--", *FLAGS)
    assert up.returncode == 0
    assert EXPECTED in ask("10.78.0.1")
    took = time.monotonic() - began
    assert desk.vllmray("down").returncode == 0
    assert desk.left() == []
    phases: dict[str, int] = {}
    for name, minutes, seconds in PHASE.findall(up.stderr):
        phases[name] = max(phases.get(name, 0), int(minutes or 0) * 60 + int(seconds or 0))
    return took, phases


def script(rig: Rig, hub: str, folder: Path) -> float:
    """The same by the commands that a person types on each host."""
    desk = settings(rig, hub, folder)
    sizes = {"TENSOR_PARALLEL_SIZE": "1", "PIPELINE_PARALLEL_SIZE": "4"}

    def at(number: int, *argv: str, text: str | None = None) -> str:
        place = folder / f"host{number}"
        if not place.exists():
            place.mkdir()
            lines = [*(folder / ".env").read_text().splitlines(), *(f"{name}={value}" for name, value in sizes.items())]
            (place / ".env").write_text("\n".join(lines) + "\n")
        command = f"cd {place} && HOME={place} PATH={VLLMRAY.parent}:$PATH {shlex.join(argv)}"
        done = subprocess.run(
            ("ssh", f"gpu{number}", command),
            input=text,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PATH": f"{rig.ssh}:{os.environ['PATH']}"},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    began = time.monotonic()
    at(1, "vllmray", "up", "--role", "head", "--no-wait", "--", *FLAGS)
    token = at(1, "vllmray", "token")
    for number in HOSTS[1:]:
        at(number, "sh", "-c", "umask 077; cat > vllmray.token", text=token)
        at(number, "vllmray", "up", "--role", "worker", "--head-ip", "10.78.0.1", "--token-file", "vllmray.token")
    at(1, "vllmray", "up", "--role", "head", "--", *FLAGS)
    assert EXPECTED in ask("10.78.0.1")
    took = time.monotonic() - began
    for number in HOSTS:
        at(number, "vllmray", "down")
    assert desk.left() == []
    shutil.rmtree(folder)
    return took


if __name__ == "__main__":
    main()
