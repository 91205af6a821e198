"""One engine, from `up` to `down`, and what can be read of it meanwhile."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.gpu.machine import GIB
from tests.gpu.places import Done, Place, complete
from tests.gpu.results import Row

DUMMY = ("--load-format", "dummy")
NUMBER = r"([\d.,]+)"
# Words of vLLM's log (0.25: v1/worker/gpu_worker.py, v1/worker/gpu_model_runner.py, v1/core/kv_cache_utils.py,
# v1/engine/core.py, compilation/monitor.py), with what they tell in GiB, tokens or seconds.
LOGGED = {
    "weights": rf"Model loading took {NUMBER} GiB",
    "load": rf"Model loading took .* and {NUMBER} seconds",
    "room": rf"Available KV cache memory: {NUMBER} GiB",
    "tokens": rf"GPU KV cache size: {NUMBER} tokens",
    "compile": rf"torch\.compile took {NUMBER} s in total",
    "capture": rf"Graph capturing finished in {NUMBER} secs",
    "graphs": rf"Graph capturing finished in .*, took {NUMBER} GiB",
    "init": rf"init engine \(profile, create kv cache, warmup model\) took {NUMBER} s",
    "counted": rf"is equivalent to --gpu-memory-utilization={NUMBER} without CUDA graph memory profiling",
    "activation": rf"GiB for weight, {NUMBER} GiB for peak activation",
    "beyond torch": rf"GiB for peak activation, {NUMBER} GiB for non-torch memory",
}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How a model is spread."""

    tensor: int
    pipeline: int

    @property
    def gpus(self) -> int:
        return self.tensor * self.pipeline

    @property
    def argv(self) -> tuple[str, ...]:
        return ("--tensor-parallel-size", str(self.tensor), "--pipeline-parallel-size", str(self.pipeline))


@dataclass(slots=True)
class Engine:
    """An engine that is up, or was to be."""

    place: Place
    model: Path
    up: Done

    @property
    def seconds(self) -> float:
        """From the command to an engine that answered."""
        return self.up.seconds

    def endpoint(self) -> str:
        return str(self.place.status()["endpoint"])

    def key(self) -> str:
        return self.place.vllmray("key").stdout.strip()

    def complete(self, tokens: int = 16) -> str:
        return complete(self.endpoint(), str(self.model), self.key(), tokens=tokens)

    def logged(self) -> dict[str, float]:
        """Numbers of vLLM's log, of the worker that has most of each."""
        return numbers(self.place.vllmray("logs", "engine").stdout)

    def steps(self) -> dict[str, float]:
        """When each stage of the engine was reached, in seconds since its container started."""
        rows = json.loads(self.place.vllmray("events", "--json").stdout)["data"]["events"]
        begin = min(row["at"] for row in rows)
        return {row["kind"]: row["at"] - begin for row in rows if row["kind"] in ("joined", "starting", "ready")}


def numbers(log: str) -> dict[str, float]:
    """What LOGGED finds, the largest where several processes say it."""
    found: dict[str, float] = {}
    for name, pattern in LOGGED.items():
        values = [float(text.replace(",", "")) for text in re.findall(pattern, log)]
        if values:
            found[name] = max(values)
    return found


def plan(place: Place, model: Path, sizes: Sizes, after: Sequence[str], *options: str) -> dict[str, Any]:
    """What `vllmray plan` says of these sizes, of the stage that holds most; without --gpus, of this machine's GPUs."""
    done = place.vllmray("plan", str(model), "--json", *options, "--", *DUMMY, *after)
    if done.code:
        return {"rejected": done.stderr}
    layouts = json.loads(done.stdout)["data"]["layouts"]
    wanted = (sizes.tensor, sizes.pipeline)
    layout: dict[str, Any] = next(
        each for each in layouts if (each["tensor_parallel_size"], each["pipeline_parallel_size"]) == wanted
    )
    stages = layout["stages"]
    return (
        layout
        | {name: max(stage[name] for stage in stages) / GIB for name in ("weights", "beside") if stages}
        | {"room": min((stage["room"] for stage in stages), default=0) / GIB}
    )


@contextmanager
def engine(
    place: Place, model: Path, sizes: Sizes, row: Row, after: Sequence[str] = (), options: Sequence[str] = ()
) -> Iterator[Engine | None]:
    """Up on one host, and down again; None when it did not come up, and the row says why."""
    argv = ("up", "--role", "head", "--model", str(model), *sizes.argv, *options, "--", *DUMMY, *after)
    up = place.vllmray(*argv)
    try:
        if row.must(up.code == 0, f"up ended with {up.code}: {' / '.join(up.stderr.splitlines()[-6:])}"):
            yield Engine(place, model, up)
        else:
            yield None
    finally:
        began = time.monotonic()
        down = place.vllmray("down")
        row.must(down.code == 0, f"down ended with {down.code}: {down.stderr}")
        row.saw(f"down in {time.monotonic() - began:.1f} s")


def answers(found: Engine, row: Row) -> None:
    """A completion, and the memory that `status` shows."""
    text = ""
    with suppress(OSError):
        text = found.complete()
    row.must(text, "no completion")
    memory = found.place.status()["gpu_memory"]
    shown = ", ".join(f"{gpu['used'] / GIB:.1f} of {gpu['total'] / GIB:.1f} GiB" for gpu in memory)
    row.saw(f"status: {shown or 'no GPU memory'}")
