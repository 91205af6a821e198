"""The rows of the table, each a use of vllmray as its users have."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.gpu import machine, shapes
from tests.gpu.bare import bare
from tests.gpu.engine import Engine, Sizes, answers, engine, plan
from tests.gpu.places import DockerHost, Place, complete
from tests.gpu.results import Row
from tests.gpu.shapes import Shape
from vllmray.model.memory import Engine as Settings
from vllmray.model.memory import stage_weights
from vllmray.model.model import model_of

WEIGHTS_GOAL, ROOM_GOAL, BENCH_GOAL = 0.05, 0.10, 0.99
FILLED = 0.7
"""Of a GPU's memory by weights, for shapes that are sized to fill it."""
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Bench:
    """What vLLM's own benchmark is asked for."""

    prompts: int = 400
    concurrency: int = 32
    input_tokens: int = 512
    output_tokens: int = 128


@dataclass(slots=True)
class Setting:
    """What the rows run on."""

    folder: Path
    environment: Mapping[str, str]
    """What every node gets besides."""
    image: str
    hosts: list[DockerHost]
    python: str = sys.executable
    small: Shape = shapes.LLAMA_8B
    large: Shape = shapes.LLAMA_70B
    filling: Mapping[str, Shape] = field(default_factory=lambda: {"MoE": shapes.MIXTURE, "MLA": shapes.LATENT})
    after: tuple[str, ...] = ()
    """Further arguments of vLLM's server."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Further ones of vllmray."""
    one_host: Sizes = field(default_factory=lambda: Sizes(2, 1))
    two_hosts: Sizes = field(default_factory=lambda: Sizes(1, 2))
    gpus_of_two: tuple[str, str] = ("device=0", "device=1")
    memory: int = 0
    """Bytes of a GPU, of the one that has least; 0 in a rehearsal."""
    bench: Bench = field(default_factory=Bench)

    def place(self, name: str, host: DockerHost | None = None, **more: str) -> Place:
        """A shell before that host's daemon, or without one for processes."""
        listed = ",".join(f"{key}={value}" for key, value in self.environment.items())
        settings = {**self.settings, **({"VLLMRAY_ENV": listed} if listed else {}), **more}
        if host is None:
            settings |= {"VLLMRAY_RUNTIME": "native", "VLLMRAY_PYTHON": self.python}
            settings["VLLMRAY_NODE_IP"] = "127.0.0.1"  # a machine without a network has no other
        else:
            settings |= {"VLLMRAY_RUNTIME": "docker", "DOCKER_HOST": host.socket, "VLLMRAY_IMAGE": self.image}
            settings["VLLMRAY_NODE_IP"] = host.address
        inside = host.inside if host else ()
        return Place(name, self.folder / name, settings, self.folder / "commands.log", inside)

    def model(self, shape: Shape) -> Path:
        return shapes.write(shape, self.folder / "models")

    @property
    def is_real(self) -> bool:
        return self.memory > 0


def nothing_left(setting: Setting, row: Row) -> None:
    """On the GPUs, as nvidia-smi has it."""
    if setting.is_real:
        left = machine.leftovers()
        row.must(not left, f"left on the GPUs: {', '.join(left)}")
        row.saw("nvidia-smi: nothing left" if not left else "leftovers")


def one_host(setting: Setting, place: Place, host: DockerHost | None = None) -> list[Row]:
    """1 and 8: one host with both GPUs, and how its containers got them."""
    given = Row("8", "how containers get their GPUs")
    row = Row(f"1 {place.name}", f"one host, {place.name}, {setting.small.name}, TP {setting.one_host.tensor}")
    model = setting.model(setting.small)
    said = plan(place, model, setting.one_host, setting.after) if setting.is_real else {}
    with engine(place, model, setting.one_host, row, setting.after) as found:
        if found:
            gpus = next((line for line in found.up.stderr.splitlines() if line.startswith("network and GPUs")), "")
            row.saw(gpus.partition(": ")[2] or "no line about GPUs")
            row.must(f"{setting.one_host.gpus} GPU" in gpus, "the GPUs were not found")
            row.saw(f"up to the first token in {found.seconds:.1f} s")
            answers(found, row)
            if host:
                form = "{{json .HostConfig.DeviceRequests}} {{range .HostConfig.Devices}} {{.PathOnHost}}{{end}}"
                given.saw(host.docker("inspect", "--format", form, "vllmray-head").strip())
            if said:
                row.saw(f"plan: {said.get('weights', 0):.1f} GiB of weights a GPU")
            if "weights" in (logged := found.logged()):
                row.saw(f"vLLM: {logged['weights']:.1f} GiB")
    nothing_left(setting, row)
    return [row, given] if host else [row]


def two_hosts(setting: Setting) -> list[Row]:
    """2 and 5: a GPU a host, and the loss of a worker while it serves."""
    joined = Row("2", f"two hosts, Docker, {setting.small.name}, PP {setting.two_hosts.pipeline}")
    lost = Row("5", "a worker's container killed while its engine serves")
    model = setting.model(setting.small)
    apart = {"NCCL_P2P_DISABLE": "1", "NCCL_SHM_DISABLE": "1"}  # as between machines
    where = Setting(
        **{name: getattr(setting, name) for name in setting.__slots__}
        | {"environment": {**setting.environment, **apart}}
    )
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


def filled(shape: Shape, memory: int, sizes: Sizes) -> Shape:
    """The shape with as many layers as fill so much of GPUs of that memory."""
    layers = 2

    def weights(count: int) -> int:
        made = model_of(shape.with_layers(count).config, shape.name).shape
        return stage_weights(
            made, made.layers, Settings(max_model_len=1), tensor_parallel_size=sizes.tensor, first=True, last=True
        )

    while weights(layers + 1) < FILLED * memory:
        layers += 1
    return shape.with_layers(layers)


def memory(setting: Setting, name: str, shape: Shape) -> list[Row]:
    """3 and 4: what `plan` says of a shape that fills the GPUs, and what they hold."""
    place = setting.place(
        f"memory-{shape.name}", None, VLLMRAY_ENV=_with(setting.environment, VLLM_LOGGING_LEVEL="DEBUG")
    )
    row = Row(f"4 {name}", f"memory of {shape.name} with {shape.layers} layers, TP {setting.one_host.tensor}")
    fits = Row("3", f"{shape.name} in bf16 over both GPUs") if name == "dense" else Row("", "")
    model = setting.model(shape)
    said = plan(place, model, setting.one_host, setting.after) if setting.is_real else {}
    if said.get("rejected"):
        fits.saw(f"plan: {said['rejected']}")
    elif said:
        fits.saw(f"plan: it fits, for {said['sequences']} sequences of 4096 tokens")
    with engine(place, model, setting.one_host, row, setting.after) as found:
        if found:
            answers(found, row)
            _compare(found.logged(), said, row)
            fits.saw(f"it serves, after {found.seconds:.1f} s")
        fits.must((found is not None) is not bool(said.get("rejected")), "plan and vLLM do not agree")
    fits.wrong += row.wrong if name == "dense" and not found else []
    nothing_left(setting, row)
    return [row, fits] if name == "dense" else [row]


def _with(environment: Mapping[str, str], **more: str) -> str:
    return ",".join(f"{key}={value}" for key, value in {**environment, **more}.items())


def _compare(logged: Mapping[str, float], said: Mapping[str, Any], row: Row) -> None:
    found = dict(logged)
    graphs = found.get("graphs", 0.0)
    if "room" in found and "counted" not in found:
        # Some versions and runners capture graphs into the memory that --gpu-memory-utilization leaves free; newer ones
        # (vllm 0.32, v1/worker/gpu_worker.py) take them from the sequences, as plan does.
        row.saw(f"vLLM's {found['room']:.2f} GiB for sequences do not count the graphs")
        found["room"] -= graphs
    for name, goal in (("weights", WEIGHTS_GOAL), ("room", ROOM_GOAL)):
        if name not in found or name not in said:
            row.must(not said, f"no word of vLLM about {name}")
            continue
        error = said[name] / found[name] - 1
        row.saw(f"{name}: plan {said[name]:.2f} GiB, vLLM {found[name]:.2f} GiB, {100 * error:+.1f} %")
        row.must(abs(error) <= goal, f"{name} is off by more than {100 * goal:.0f} %")
    parts = [f"{name} {found[name]:.2f}" for name in ("activation", "beyond torch", "graphs") if name in found]
    row.saw(f"beside the weights: plan {said.get('beside', 0):.2f} GiB, vLLM {', '.join(parts)}")


def speed(setting: Setting) -> list[Row]:
    """6 and 7: beside the same by hand, both at once on the same GPUs, each with a share of their memory."""
    bring_up = Row("7", f"from the command to the first token, {setting.small.name}, TP {setting.one_host.tensor}")
    ratio = Row("6", "vllm bench serve through vllmray's endpoint over bare vLLM")
    model = setting.model(setting.small)
    place = setting.place("speed")
    share = (*setting.after, *(("--gpu-memory-utilization", "0.42") if setting.is_real else ()))
    with engine(place, model, setting.one_host, bring_up, share) as found:
        if not found:
            ratio.must(False, "there was no engine")
            return [bring_up, ratio]
        _steps(found, bring_up)
        with bare(setting.folder / "bare", model, setting.one_host, setting.environment, share, 4096) as other:
            by_hand = other.ray_start + other.server
            bring_up.saw(f"by hand {by_hand:.1f} s: ray start {other.ray_start:.1f} s, server {other.server:.1f} s")
            bring_up.must(found.seconds <= 1.1 * by_hand, "slower than by hand by more than a tenth")
            ends = {"vllmray": (found.endpoint(), found.key()), "bare": (other.endpoint, None)}
            _bench(setting, model, ends, ratio)
    nothing_left(setting, ratio)
    return [bring_up, ratio]


def _steps(found: Engine, row: Row) -> None:
    logged, steps = found.logged(), found.steps()
    row.saw(f"vllmray {found.seconds:.1f} s")
    row.saw("its engine: " + ", ".join(f"{name} at {when:.1f} s" for name, when in steps.items()))
    parts = {
        "load": "weights made",
        "compile": "compiled",
        "capture": "graphs captured",
        "init": "profiled, compiled and warmed up",
    }
    row.saw(
        "in vLLM: " + ", ".join(f"{words} in {logged[name]:.1f} s" for name, words in parts.items() if name in logged)
    )


def _bench(setting: Setting, model: Path, ends: Mapping[str, tuple[str, str | None]], row: Row) -> None:
    """In turn, so that whatever the machine does is in both; medians."""
    found: dict[str, list[Mapping[str, float]]] = {name: [] for name in ends}
    for number in range(ROUNDS + 1):
        for name, (endpoint, key) in ends.items():
            result = _one_bench(setting, model, endpoint, key)
            if number:  # the first of each warms up
                found[name].append(result)
    for title, key, unit in (
        ("output", "output_throughput", "tokens/s"),
        ("median TTFT", "median_ttft_ms", "ms"),
        ("median TPOT", "median_tpot_ms", "ms"),
    ):
        ours, theirs = (statistics.median(each[key] for each in found[name]) for name in ends)
        row.saw(f"{title}: {ours:.1f} over {theirs:.1f} {unit}, ratio {ours / theirs:.3f}")
        if key == "output_throughput":
            row.must(ours / theirs >= BENCH_GOAL, f"throughput below {BENCH_GOAL} of bare vLLM's")


def _one_bench(setting: Setting, model: Path, endpoint: str, key: str | None) -> Mapping[str, float]:
    out = setting.folder / "bench.json"
    ask = setting.bench
    argv = [setting.python, "-m", "vllm.entrypoints.cli.main", "bench", "serve", "--backend", "openai"]
    argv += ["--base-url", endpoint.removesuffix("/v1"), "--endpoint", "/v1/completions", "--model", str(model)]
    argv += [
        "--dataset-name",
        "random",
        "--random-input-len",
        str(ask.input_tokens),
        "--random-output-len",
        str(ask.output_tokens),
    ]
    argv += [
        "--num-prompts",
        str(ask.prompts),
        "--max-concurrency",
        str(ask.concurrency),
        "--ignore-eos",
        "--seed",
        "1",
    ]
    argv += ["--save-result", "--result-dir", str(out.parent), "--result-filename", out.name]
    environment = dict(os.environ) | dict(setting.environment) | ({"OPENAI_API_KEY": key} if key else {})
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=300)
    with (setting.folder / "commands.log").open("a") as log:
        log.write(done.stdout + done.stderr)
    done.check_returncode()
    result: Mapping[str, float] = json.loads(out.read_text())
    return result


def rows_of(setting: Setting, wanted: Iterable[str]) -> Iterable[list[Row]]:
    """The rows of these numbers, as they are ready."""
    chosen = set(wanted)
    if chosen & {"1", "1native"}:
        yield one_host(setting, setting.place("native"))
    if chosen & {"1", "1docker"} and setting.hosts:
        yield one_host(setting, setting.place("docker", setting.hosts[0]), setting.hosts[0])
    if chosen & {"3", "4", "4dense"}:
        yield memory(setting, "dense", setting.large)
    for name, shape in setting.filling.items():
        if chosen & {"4", f"4{name}"}:
            yield memory(setting, name, filled(shape, setting.memory, setting.one_host) if setting.is_real else shape)
    if chosen & {"2", "5"}:
        yield two_hosts(setting)
    if chosen & {"6", "7"}:
        yield speed(setting)
