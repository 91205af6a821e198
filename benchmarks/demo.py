"""How long `vllmray demo` takes to its first streamed token, beside the same cluster by bare commands. Root on Debian.

    .venv/bin/python -m benchmarks.demo          # about twenty minutes; scripts/test has made the environments it needs

Four ways to the same answer, in turn, each ROUNDS times: `vllmray demo` and bare commands, as processes and in
containers. The bare commands are those that a person types: `ray start` for the head, `ray start` for the worker when
the first has returned, then the vLLM server, each with the settings that vllmray gives it. Everything is warm: the
model, the environment, the image. Medians; on shared machines compare the ratios.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import psutil
from tests.rig import hosts
from tests.rig.kinds import DOCKER_20
from tests.rig.model import CPU_PYTHON, model_folder

from vllmray.demo.model import NAME
from vllmray.demo.run import ENGINE_ARGS, QUESTION
from vllmray.engine.argv import CPU_COMPILATION

ROUNDS = 3
BOUND = 1.05
Stages = dict[str, float]
"""Seconds since the beginning at which each was reached, in order."""

ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLMRAY_CPU_SLOTS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "HF_HUB_OFFLINE": "1",
}
FIRST_TOKEN = "first token"
SHM = Path("/dev/shm")


# Words of vLLM 0.32's log, and what was done by then.
LOGGED = {
    "non-default args": "server imported vLLM",
    "Initializing a V1 LLM engine": "engine core imported vLLM",
    "world_size=2 rank=": "Ray workers imported vLLM",
    "init engine (profile": "model loaded and warmed up",
}


def node_environment(ip: str, interface: str, folder: str) -> dict[str, str]:
    names = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "TP_SOCKET_IFNAME")
    own = {"VLLM_HOST_IP": ip, "VLLM_RPC_BASE_PATH": folder, **dict.fromkeys(names, interface)}
    return ENVIRONMENT | own


def ray_start(ip: str, folder: str, *role: str) -> list[str]:
    node = [f"--node-ip-address={ip}", f"--temp-dir={folder}", "--num-gpus=1", "--object-store-memory=104857600"]
    return ["ray", "start", *role, *node]


def server(model: str, port: int) -> list[str]:
    own = [f"--model={model}", f"--port={port}", "--tensor-parallel-size=1", "--pipeline-parallel-size=2"]
    own += ["--distributed-executor-backend=ray", "--max-model-len=1024"]
    compilation = f"--compilation-config={json.dumps(CPU_COMPILATION)}"
    return ["python3", "-m", "vllm.entrypoints.openai.api_server", *own, compilation, *ENGINE_ARGS]


def first_token(ip: str, port: int) -> None:
    """Ask until the server is there, and return with the first piece of the answer."""
    messages = [{"role": "user", "content": QUESTION}]
    body = json.dumps({"model": NAME, "messages": messages, "max_tokens": 50, "temperature": 0, "stream": True})
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection(ip, port, timeout=120)
        try:
            connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
            for line in connection.getresponse():
                if line.startswith(b"data: {") and json.loads(line[6:])["choices"][0]["delta"].get("content"):
                    return
        except ConnectionError:
            time.sleep(0.1)
        finally:
            connection.close()
    raise RuntimeError("no token within five minutes")


class Watch:
    """Notes when each stage was reached."""

    def __init__(self) -> None:
        self._began = time.time()
        self.stages: Stages = {}

    def reached(self, stage: str) -> None:
        self.stages[stage] = time.time() - self._began

    def read(self, log: str) -> None:
        """Take over from vLLM's log when it reached its own stages; its clock shows whole seconds, in any time zone."""
        began = self._began % 3600
        for words, stage in LOGGED.items():
            line = next((line for line in log.splitlines() if words in line), "")
            found = re.search(r" \d\d:(\d\d):(\d\d) \[", line)
            if found:
                self.stages[stage] = (int(found[1]) * 60 + int(found[2]) - began) % 3600
        self.stages = dict(sorted(self.stages.items(), key=lambda reached: reached[1]))


def demo(command: Sequence[str], options: Sequence[str], environment: Mapping[str, str]) -> Stages:
    """`vllmray demo`, its stages told by the lines that it prints."""
    watch = Watch()
    said = {
        "Ray head: ": "head started",
        "joining the cluster: ": "Ray has both GPUs",
        "engine: answered": "engine ready",
    }
    process = subprocess.Popen(
        [*command, "demo", *options], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    answering = False
    line = b""
    while byte := process.stdout.read(1):
        if answering:
            watch.reached(FIRST_TOKEN)
            break
        line += byte
        if byte == b"\n":
            text = line.decode()
            for words, stage in said.items():
                if text.startswith(words):
                    watch.reached(stage)
            answering = text.startswith(f"> {QUESTION}")
            line = b""
    process.stdout.read()
    if process.wait() != 0:
        raise RuntimeError(f"vllmray demo {' '.join(options)} failed")
    run = partial(subprocess.run, env=environment, check=True, capture_output=True, text=True)
    watch.read(run([*command, "logs", "--cluster", "demo"]).stdout)
    run([*command, "down", "--cluster", "demo"])
    return watch.stages


def bare_native(home: Path, model: Path) -> Stages:
    """Three commands at a shell."""
    head, worker = "127.0.0.2", "127.0.0.3"
    path = {"PATH": f"{CPU_PYTHON.parent}:{os.environ['PATH']}", "HOME": str(home), "LC_ALL": "C.UTF-8"}
    with tempfile.TemporaryDirectory(prefix="h", dir="/tmp") as one, tempfile.TemporaryDirectory(dir="/tmp") as two:
        before = set(SHM.iterdir())
        env = {ip: path | node_environment(ip, "lo", folder) for ip, folder in ((head, one), (worker, two))}

        def run(ip: str, argv: list[str]) -> None:
            subprocess.run(argv, env=env[ip], check=True, capture_output=True)

        watch = Watch()
        try:
            run(head, ray_start(head, one, "--head", "--port=6379"))
            watch.reached("head started")
            ports = ("--min-worker-port=20002", "--max-worker-port=20999")
            run(worker, ray_start(worker, two, "--address=127.0.0.2:6379", *ports))
            watch.reached("Ray has both GPUs")
            argv = server(str(model), 8100)
            log = home / "engine.log"
            with log.open("w") as file:
                engine = subprocess.Popen(
                    argv, env=env[head] | {"RAY_ADDRESS": f"{head}:6379"}, stdout=file, stderr=subprocess.STDOUT
                )
            first_token(head, 8100)
            watch.reached(FIRST_TOKEN)
            engine.terminate()
            engine.wait(timeout=60)
            watch.read(log.read_text())
        finally:
            end(one, two)
            for left in set(SHM.iterdir()) - before:
                left.unlink(missing_ok=True)
    return watch.stages


def end(*folders: str) -> None:
    """Kill the processes that name one of these folders, and their children. `ray stop` would end every Ray here."""
    for process in list(psutil.process_iter()):
        with suppress(psutil.Error):
            if any(folder in " ".join(process.cmdline()) for folder in folders):
                for one in (*process.children(recursive=True), process):
                    one.kill()


def bare_docker(rig: hosts.Rig) -> Stages:
    """As bare_native, in two containers on a network of their own, the server by `docker exec` in the head."""
    host = rig.host(1)
    host.docker("network", "create", "--subnet", "10.79.0.0/24", "bare")
    head, worker = "10.79.0.2", "10.79.0.3"

    def node(name: str, ip: str, argv: list[str]) -> None:
        env = [f"--env={key}={value}" for key, value in node_environment(ip, "eth0", "/tmp/ray").items()]
        mount = f"--mount=type=bind,source={rig.model},target={rig.model},readonly"
        network = ("--network", "bare", "--ip", ip, "--shm-size=1g", "--init")
        host.docker("run", "-d", "--name", name, *network, mount, *env, *PLUGIN, rig.image, "sleep", "infinity")
        host.docker("exec", name, *argv)

    watch = Watch()
    try:
        node("bare-head", head, ray_start(head, "/tmp/ray", "--head", "--port=6379"))
        watch.reached("head started")
        node("bare-worker", worker, ray_start(worker, "/tmp/ray", f"--address={head}:6379"))
        watch.reached("Ray has both GPUs")
        address = ("--env", f"RAY_ADDRESS={head}:6379")
        line = f"{shlex.join(server(str(rig.model), 8100))} > /tmp/engine.log 2>&1"
        host.docker("exec", "-d", *address, "bare-head", "sh", "-c", line)
        ask = "import sys; from benchmarks.demo import first_token; first_token(sys.argv[1], 8100)"
        subprocess.run(host.inside(sys.executable, "-c", ask, head), check=True)
        watch.reached(FIRST_TOKEN)
        watch.read(host.docker("exec", "bare-head", "cat", "/tmp/engine.log"))
    finally:
        host.docker("rm", "--force", "--volumes", "bare-head", "bare-worker", check=False)
        host.docker("network", "rm", "bare")
    return watch.stages


def plugin() -> Iterator[str]:
    """What makes vllmray's vLLM plugin visible in a bare container, as `vllmray up --dry-run=commands` prints it."""
    from vllmray.cluster.spec.contents import SITE
    from vllmray.cluster.spec.payload import sources

    yield "--env=PYTHONPATH=/site"
    for name, path in sources().items():
        yield f"--volume={path}:/site/{name.removeprefix(f'{SITE}/')}:ro"


PLUGIN = tuple(plugin())


@contextmanager
def home_folder() -> Iterator[Path]:
    """An empty home whose cache has the model."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def main() -> int:
    """Measure all four in turn and print the tables; 1 when a bound does not hold."""
    rig = hosts.start(DOCKER_20)
    try:
        with home_folder() as home:
            model = model_folder()
            env = {"HOME": str(home), "PATH": os.environ["PATH"], "XDG_CACHE_HOME": str(model.parents[2])}
            command = str(CPU_PYTHON.with_name("vllmray"))
            host = rig.host(1)
            docker_env = env | {"DOCKER_HOST": host.docker_host}
            ways: dict[str, Callable[[], Stages]] = {
                "demo, native": lambda: demo([command], ["--runtime", "native"], env),
                "bare, native": lambda: bare_native(home, model),
                "demo, Docker": lambda: demo(
                    host.inside(command), ["--runtime", "docker", "--image", rig.image], docker_env
                ),
                "bare, Docker": lambda: bare_docker(rig),
            }
            seen: dict[str, list[Stages]] = {way: [] for way in ways}
            for _ in range(ROUNDS):
                for way, go in ways.items():
                    seen[way].append(go())
                    print(
                        way, {stage: round(at, 1) for stage, at in seen[way][-1].items()}, file=sys.stderr, flush=True
                    )
    finally:
        rig.stop()
    return report(seen)


def report(seen: Mapping[str, list[Stages]]) -> int:
    """Print what was seen; 1 when a bound does not hold."""
    medians = {
        way: {stage: statistics.median(run[stage] for run in runs) for stage in runs[0]} for way, runs in seen.items()
    }
    print("| what | seconds | beside | seconds | ratio | bound | holds |\n|---|---|---|---|---|---|---|")
    worst = 0.0
    for runtime in ("native", "Docker"):
        ours, theirs = medians[f"demo, {runtime}"][FIRST_TOKEN], medians[f"bare, {runtime}"][FIRST_TOKEN]
        worst = max(worst, ours / theirs)
        holds = "yes" if ours / theirs <= BOUND else "NO"
        print(
            f"| demo, {runtime} | {ours:.1f} | bare commands | {theirs:.1f} | {ours / theirs:.3f} | {BOUND} | {holds} |"
        )
    print("\n| seconds since the beginning | " + " | ".join(medians) + " |\n|---|" + "---|" * len(medians))
    for stage in medians["demo, native"]:
        cells = (f"{run[stage]:.1f}" if stage in run else "" for run in medians.values())
        print(f"| {stage} | {' | '.join(cells)} |")
    return 0 if worst <= BOUND else 1


if __name__ == "__main__":
    sys.exit(main())
