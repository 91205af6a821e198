"""A real Ray, with and without its token, as payload/engine/closed.py and launch.py see it."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.programs.support import free_port
from tests.programs.test_launch import Engine, runs
from tests.rig.model import CPU_PYTHON

TOKEN = "a-token-that-is-long-enough"
ASK = """
import sys
from vllmray.payload.engine.closed import NotKnownError, OpenError, check_ray
try:
    check_ray(int(sys.argv[1]), sys.argv[2])
    print("closed")
except (OpenError, NotKnownError) as error:
    print(f"{type(error).__name__}: {error}")
"""


@dataclass(frozen=True, slots=True)
class Ray:
    """A head that runs."""

    gcs: str
    dashboard: int
    environment: dict[str, str]

    def seen(self, dashboard: int) -> str:
        """What check_ray says of it, where its dashboard were on that port."""
        argv = [str(CPU_PYTHON), "-c", ASK, str(dashboard), self.gcs]
        done = subprocess.run(argv, env=self.environment, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout.strip()


@contextmanager
def ray_head(mode: str, home: Path) -> Iterator[Ray]:
    """`ray start --head` on 127.0.0.2 with that RAY_AUTH_MODE, and a token at hand."""
    (home / "token").write_text(TOKEN)
    environment = {
        "HOME": str(home),
        "PATH": f"{CPU_PYTHON.parent}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": mode,
        "RAY_AUTH_TOKEN_PATH": str(home / "token"),
    }
    gcs, dashboard = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:  # short: sockets lie below
        argv = ["ray", "start", "--head", "--block", "--node-ip-address=127.0.0.2", f"--port={gcs}"]
        argv += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", "--num-gpus=1", "--num-cpus=1"]
        argv += [f"--temp-dir={folder}", "--object-store-memory=100000000", "--disable-usage-stats"]
        with (home / "ray.log").open("w+") as log:
            process = psutil.Popen(argv, env=environment, stdout=log, stderr=log, cwd=home)
            try:
                while "Ray runtime started" not in (home / "ray.log").read_text():
                    assert process.poll() is None, (home / "ray.log").read_text()
                    time.sleep(0.1)
                yield Ray(f"127.0.0.2:{gcs}", dashboard, environment)
            finally:
                for each in [process, *process.children(recursive=True)]:
                    each.kill()
                process.wait()


@pytest.fixture(params=["token", "disabled"])
def ray(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Ray]]:
    with ray_head(request.param, tmp_path) as started:
        yield request.param, started


def test_a_real_ray_says_whether_it_asks_for_its_token_with_and_without_a_dashboard_and_rules_the_engine(
    ray: tuple[str, Ray], tmp_path_factory: pytest.TempPathFactory
) -> None:
    mode, head = ray
    nobody = free_port()
    engine = Engine(tmp_path_factory.mktemp("engine"), head.dashboard)
    engine.start()
    if mode == "token":
        assert head.seen(head.dashboard) == head.seen(nobody) == "closed"
        engine.is_in("ready")
    else:
        seen = head.seen(head.dashboard)
        assert seen.startswith("OpenError: Ray does not require token authentication (authentication mode 'dis")
        assert head.seen(nobody).startswith(f"OpenError: Ray at {head.gcs} answers without a token")
        engine.is_in("insecure")
        assert not runs(engine.servers()[0])
    assert engine.end() == 0


def test_nothing_is_known_of_a_ray_that_does_not_answer(tmp_path: Path) -> None:
    gone = Ray(f"127.0.0.2:{free_port()}", 0, {"HOME": str(tmp_path), "PATH": os.environ["PATH"]})
    assert gone.seen(free_port()).startswith("NotKnownError: ")
