"""A real registry on a rig host's loopback, where a Docker daemon requires no TLS: Debian's docker-registry."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.rig import cutting_proxy
from tests.rig.hosts import TestHost

PORT = 5000
PROXY_PORT = 5001
USER, PASSWORD = "someone", "let me in"
HTPASSWD = f"{USER}:$2b$05$/hRNqIz2ROBsDl2SNVIdH.x6qBmvd/CdF74j46PzzBdPM7IqvDw5K\n"

CONFIG = """\
version: 0.1
log: {{level: error}}
storage:
  filesystem: {{rootdirectory: {storage}}}
http: {{addr: "127.0.0.1:{port}"}}
"""
AUTH = "auth: {{htpasswd: {{realm: tests, path: {path}}}}}\n"


@contextmanager
def registry(host: TestHost, folder: Path, *, guarded: bool = False) -> Iterator[str]:
    """A registry while the block runs, which keeps its images in that folder; yields the first part of their names."""
    folder.mkdir(exist_ok=True)
    text = CONFIG.format(storage=folder / "storage", port=PORT)
    if guarded:
        (folder / "htpasswd").write_text(HTPASSWD)
        text += AUTH.format(path=folder / "htpasswd")
    (folder / "config.yml").write_text(text)
    argv = host.inside("docker-registry", "serve", str(folder / "config.yml"))
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        _wait_for(process, host, folder / "log")
        yield f"127.0.0.1:{PORT}"
    finally:
        process.kill()
        process.wait()


def _wait_for(process: subprocess.Popen[bytes], host: TestHost, log: Path) -> None:
    deadline = time.monotonic() + 30
    while PORT not in host.listening():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"no registry on host {host.number}:\n{log.read_text()}")
        time.sleep(0.1)


@contextmanager
def cutting(host: TestHost, *, after: int, times: int) -> Iterator[None]:
    """A proxy to that registry, at PROXY_PORT, which cuts that many connections after so many bytes."""
    argv = host.inside(sys.executable, cutting_proxy.__file__, *map(str, (PROXY_PORT, PORT, after, times)))
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "listening\n"
        yield
    finally:
        process.kill()
        assert "cut" in process.communicate()[0], "the proxy never cut anything"
