"""6 and 7: beside the same by hand."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.gpu.bare import bare
from tests.gpu.engine import Engine, engine
from tests.gpu.results import Row
from tests.gpu.setting import Setting, nothing_left

GOAL = 0.99
ROUNDS = 3
# `vllm bench serve` (vllm, benchmarks/serve.py), without the command line in front of it: that one asks for a package
# named vllm, and builds for CPUs are named otherwise.
BENCH = """
import argparse
from vllm.benchmarks import serve
parser = argparse.ArgumentParser()
serve.add_cli_args(parser)
serve.main(parser.parse_args())
"""


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
            row.must(ours / theirs >= GOAL, f"throughput below {GOAL} of bare vLLM's")


def _one_bench(setting: Setting, model: Path, endpoint: str, key: str | None) -> Mapping[str, float]:
    out = setting.folder / "bench.json"
    ask = setting.bench
    options = {
        "backend": "openai",
        "base-url": endpoint.removesuffix("/v1"),
        "endpoint": "/v1/completions",
        "model": model,
        "dataset-name": "random",
        "random-input-len": ask.input_tokens,
        "random-output-len": ask.output_tokens,
        "num-prompts": ask.prompts,
        "max-concurrency": ask.concurrency,
        "seed": 1,
        "result-dir": out.parent,
        "result-filename": out.name,
    }
    listed = [f"--{name}={value}" for name, value in options.items()]
    argv = [setting.python, "-c", BENCH, "--ignore-eos", "--save-result", *listed]
    environment = dict(os.environ) | dict(setting.environment) | ({"OPENAI_API_KEY": key} if key else {})
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=300)
    with (setting.folder / "commands.log").open("a") as log:
        log.write(done.stdout + done.stderr)
    done.check_returncode()
    result: Mapping[str, float] = json.loads(out.read_text())
    return result
