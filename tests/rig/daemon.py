"""A Docker daemon in this machine's own network, for as long as a block runs; needs root."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def daemon(folder: Path) -> Iterator[str]:
    """Yields its address. All its data is in that folder: images in "docker", its log in "dockerd.log"."""
    address = f"unix://{folder}/docker.sock"
    argv = [
        *("dockerd", "-H", address, "--data-root", str(folder / "docker"), "--exec-root", str(folder / "exec")),
        *("--pidfile", str(folder / "pid"), "--bridge=none", "--iptables=false"),
    ]
    with (folder / "dockerd.log").open("wb") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        while subprocess.run(["docker", "-H", address, "info"], capture_output=True, check=False).returncode:
            if time.monotonic() > deadline or process.poll() is not None:
                raise RuntimeError((folder / "dockerd.log").read_text()[-2000:])
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=60)
        unmount(folder)


def unmount(folder: Path) -> None:
    """Unmount what a daemon that has ended left mounted below a folder."""
    for line in reversed(Path("/proc/mounts").read_text().splitlines()):
        place = line.split()[1]
        if place.startswith(f"{folder}/"):
            subprocess.run(["umount", "-l", place], check=False, capture_output=True)
