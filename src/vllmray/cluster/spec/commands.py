"""Command lines for people: what to type on the other hosts, and what to type after a plan; pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from vllmray.cluster.spec.sizes import options_of
from vllmray.config.models import ClusterConfig
from vllmray.config.values import as_typed, is_on_s3

TOKEN_FILE = "vllmray.token"
NOTHING: Mapping[str, object] = MappingProxyType({})
# What a worker must have as the head has it.
OF_EVERY_NODE = (
    *("cluster", "image", "accelerator", "shm_size", "object_store_memory", "memlock", "nofile", "user"),
    *("rdma", "writable_root", "ray_metrics", "volumes", "env", "ray_ports"),
)
OF_A_PLAN = (
    *("cluster", "model", "max_model_len", "tensor_parallel_size", "pipeline_parallel_size", "cluster_gpus"),
    *("allow_tp_across_hosts", "accelerator", "image", "env"),
)
ALWAYS = ("model", "max_model_len", "tensor_parallel_size", "pipeline_parallel_size")
"""Of a plan: also where they are the defaults, which another folder's .env may change."""


def token_words(config: ClusterConfig) -> str:
    """How to copy the token into the file that worker_command names, without showing it."""
    return f"once the token is there (vllmray token{config.cluster_option} | ssh HOST 'umask 077; cat > {TOKEN_FILE}')"


def worker_command(config: ClusterConfig, *, instead: Mapping[str, object] = NOTHING) -> str:
    """The exact command for the other hosts: the head's address, and what differs from a worker's defaults.

    Args:
        instead: values by name of the field, for settings that differ from the head's own.
    """
    argv = ["vllmray", "up", "--role", "worker", "--head-ip", str(config.head_ip), "--token-file", TOKEN_FILE]
    same = [name for name in OF_EVERY_NODE if name != "image" or config.runtime != "native"]
    if config.model_is_a_folder or is_on_s3(config.model):  # credentials go only where they are needed
        same.append("model")
    if config.runtime == "native":
        argv += ["--runtime", "native", *(("--python", config.python) if config.python else ())]
    argv += _options(config, same, instead=instead)
    share = options_of(config).gpu_memory_utilization
    if share != options_of(ClusterConfig()).gpu_memory_utilization:
        argv += ["--", f"--gpu-memory-utilization={share:g}"]  # what its own GPUs must have free
    return shlex.join(argv)


def up_command(config: ClusterConfig, *, env_file: str | None = None) -> str:
    """The head's command for a layout that was planned, whatever the settings came from.

    Args:
        env_file: as it was typed; the settings that are secrets, ports or folders are in there.
    """
    argv = ["vllmray", "up", "--role", "head", *shlex.split(config.host_option)]
    argv += _options(config, OF_A_PLAN, always=ALWAYS)
    argv += ["--env-file", env_file] if env_file else []
    return shlex.join([*argv, *(("--", *config.vllm_args) if config.vllm_args else ())])


def _options(
    config: ClusterConfig,
    names: Iterable[str],
    *,
    always: Iterable[str] = (),
    instead: Mapping[str, object] = NOTHING,
) -> Iterator[str]:
    """These settings as options, where they are not a default; instead as in worker_command."""
    default = ClusterConfig()
    for name in names:
        value: Any = instead.get(name, getattr(config, name))
        flag = f"--{name.replace('_', '-')}"
        if name == "ray_ports":
            changed = [(port, number) for port, number in value if number != getattr(default.ray_ports, port)]
            yield from (word for port, number in changed for word in ("--ray-port", f"{port}={number}"))
        elif name in ("volumes", "env"):
            yield from (word for each in value for word in (flag.removesuffix("s"), each))
        elif value is True:
            yield flag
        elif value != getattr(default, name) or name in always:
            yield from (flag, as_typed(name, value))
