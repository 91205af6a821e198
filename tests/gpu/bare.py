"""The same cluster by the commands that a person types: `ray start`, then vLLM's own server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.gpu.engine import DUMMY, Sizes
from tests.gpu.places import complete

RAY_PORT, PORT = 6479, 8100
DEADLINE_S = 600


@dataclass(frozen=True, slots=True)
class Bare:
    """It serves."""

    endpoint: str
    ray_start: float
    """Seconds that `ray start` took."""
    server: float
    """Seconds from the server's start to its first completion."""
    log: str


@contextmanager
def bare(
    folder: Path, model: Path, sizes: Sizes, settings: Mapping[str, str], after: Sequence[str], length: int
) -> Iterator[Bare]:
    """Ray and a server of their own on this machine's GPUs.

    Args:
        length: longest context.
    """
    folder.mkdir(parents=True, exist_ok=True)
    environment = (
        dict(os.environ) | dict(settings) | {"VLLM_CACHE_ROOT": str(folder / "cache"), "VLLM_NO_USAGE_STATS": "1"}
    )
    environment |= {"RAY_USAGE_STATS_ENABLED": "0", "VLLM_HOST_IP": "127.0.0.1"}
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    start = [*ray, "start", "--head", "--node-ip-address=127.0.0.1", f"--port={RAY_PORT}", f"--num-gpus={sizes.gpus}"]
    start += ["--dashboard-port=8365", "--temp-dir=/tmp/ray-bare", "--min-worker-port=21002", "--max-worker-port=21999"]
    start += ["--object-store-memory=1000000000", "--block", "--dashboard-agent-listen-port=52465"]
    began = time.monotonic()
    log = folder / "bare.log"
    with log.open("ab") as out:
        head = subprocess.Popen(start, env=environment, stdout=out, stderr=out, start_new_session=True)
        server = None
        try:
            _until(lambda: "This command will now block" in log.read_text(), head)
            ray_start = time.monotonic() - began
            began = time.monotonic()
            argv = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), *sizes.argv]
            argv += ["--host", "127.0.0.1", "--port", str(PORT), "--distributed-executor-backend", "ray"]
            argv += ["--max-model-len", str(length), *DUMMY, *after]
            address = {"RAY_ADDRESS": f"127.0.0.1:{RAY_PORT}"}
            server = subprocess.Popen(argv, env=environment | address, stdout=out, stderr=out, start_new_session=True)
            endpoint = f"http://127.0.0.1:{PORT}/v1"
            _until(lambda: _answers(endpoint, str(model)), server)
            yield Bare(endpoint, ray_start, time.monotonic() - began, log.read_text())
        finally:
            for process in filter(None, (server, head)):
                _end(process)


def _answers(endpoint: str, model: str) -> bool:
    with suppress(OSError):
        return bool(complete(endpoint, model, None, tokens=1))
    return False


def _until(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{process.args!r} did not get there; exit code {process.poll()}")
        time.sleep(0.1)


def _end(process: subprocess.Popen[bytes]) -> None:
    """With everything that it started: it is the head of a session of its own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(30)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
