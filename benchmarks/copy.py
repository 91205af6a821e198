"""How long an image takes to two further hosts, beside `docker save | docker load`. Prints a table; root on Debian.

    .venv/bin/python -m benchmarks.copy

Both go by ssh, and in turn; seconds are medians of three.
"""

from __future__ import annotations

import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.rig import hosts
from tests.rig.kinds import DOCKER_20

ROUNDS = 3
NAME = "vllmray-test-copied:large"
MORE = 1_000_000_000
"""Bytes of random data on top of the node image, which is 3 GB."""


def make_image(host: hosts.TestHost, node_image: str) -> float:
    """An image of which the others have no layer; returns its size in GB."""
    docker = f"docker -H {shlex.quote(host.docker_host)}"
    container = host.docker("create", node_image).strip()
    flat = f"{docker} export {container} | {docker} import - {NAME}"
    subprocess.run(["sh", "-c", flat], check=True, capture_output=True)
    host.docker("rm", container)
    with tempfile.TemporaryDirectory(dir=hosts.RUN_FOLDER) as folder:
        (Path(folder) / "Dockerfile").write_text(f"FROM {NAME}\nCOPY more /\n")
        with (Path(folder) / "more").open("wb") as file:
            for _ in range(MORE // 10**6):
                file.write(os.urandom(10**6))
        host.docker("build", "--quiet", "--tag", NAME, folder)
    return int(host.docker("inspect", "--format", "{{.Size}}", NAME)) / 1e9


def ours(source: hosts.TestHost, targets: list[hosts.TestHost]) -> tuple[float, float]:
    """Seconds, and the command's peak memory in MB."""
    to = [word for target in targets for word in ("--to", target.ssh_host)]
    began = time.perf_counter()
    command = source.command("image", "copy", NAME, *to)
    process = subprocess.Popen(command, env=source.environment, cwd=hosts.RUN_FOLDER, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"the copy ended with exit code {process.returncode}")
    return time.perf_counter() - began, usage.ru_maxrss * 1024 / 1e6


def theirs(source: hosts.TestHost, targets: list[hosts.TestHost]) -> float:
    """Seconds."""
    began = time.perf_counter()
    for target in targets:
        load = f"ssh root@{target.address} docker -H {target.docker_host} load"
        line = f"docker save {NAME} | {load}"
        subprocess.run(source.inside("sh", "-c", line), env=source.environment, check=True, capture_output=True)
    return time.perf_counter() - began


def check_and_clear(source: hosts.TestHost, targets: list[hosts.TestHost]) -> None:
    """Every target has the image by its id; then none has it any more."""
    form = ("images", "--no-trunc", "--quiet", NAME)
    for target in targets:
        if target.docker(*form) != source.docker(*form):
            raise RuntimeError(f"host {target.number} has another image")
        target.docker("rmi", "--force", NAME)


def main() -> int:
    """Measure, and print the table; 1 when a bound does not hold."""
    rig = hosts.start(*(DOCKER_20,) * 3)
    source, targets = rig.host(1), [rig.host(2), rig.host(3)]
    mine, peaks, by_hand = [], [], []
    try:
        size = make_image(source, rig.image)
        for _ in range(ROUNDS):
            took, peak = ours(source, targets)
            check_and_clear(source, targets)
            mine.append(took)
            peaks.append(peak)
            by_hand.append(theirs(source, targets))
            check_and_clear(source, targets)
            print(f"copy {took:.1f} s, save | load {by_hand[-1]:.1f} s", file=sys.stderr, flush=True)
        source.docker("rmi", "--force", NAME)
    finally:
        rig.stop()
    a, b, peak = statistics.median(mine), statistics.median(by_hand), max(peaks)
    print("| what | measured | beside | measured | ratio | bound | holds |\n|---|---|---|---|---|---|---|")
    what = f"vllmray image copy, {size:.1f} GB to two hosts"
    said = "yes" if a / b <= 0.6 else "NO"
    print(f"| {what} | {a:.1f} s | docker save, ssh, docker load, twice | {b:.1f} s | {a / b:.3f} | 0.6 | {said} |")
    print(f"| its peak memory | {peak:.0f} MB |  |  |  | 150 MB | {'yes' if peak <= 150 else 'NO'} |")
    return 0 if a / b <= 0.6 and peak <= 150 else 1


if __name__ == "__main__":
    sys.exit(main())
