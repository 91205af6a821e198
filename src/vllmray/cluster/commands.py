"""Command lines for people: what to type on the other hosts; pure."""

from __future__ import annotations

import shlex

from vllmray.cluster.fit import options_of
from vllmray.config.models import ClusterConfig
from vllmray.config.values import as_typed

TOKEN_FILE = "vllmray.token"


def token_words(config: ClusterConfig) -> str:
    """How the token gets to the file that worker_command names, without a look at it."""
    return f"once the token is there (vllmray token{config.cluster_option} | ssh HOST 'umask 077; cat > {TOKEN_FILE}')"


def worker_command(config: ClusterConfig) -> str:
    """The exact command for the other hosts: the head's address, and what differs from a worker's defaults."""
    default = ClusterConfig()
    argv = ["vllmray", "up", "--role", "worker", "--head-ip", str(config.head_ip), "--token-file", TOKEN_FILE]
    same = ["cluster", "image", "accelerator", "shm_size", "object_store_memory", "memlock", "nofile", "user"]
    if config.model_is_a_folder:
        same.append("model")
    if config.runtime == "native":
        same.remove("image")
        argv += ["--runtime", "native", *(("--python", config.python) if config.python else ())]
    for name in same:
        value = getattr(config, name)
        if value != getattr(default, name):
            argv += [f"--{name.replace('_', '-')}", as_typed(name, value)]
    argv += [
        f"--{name.replace('_', '-')}" for name in ("rdma", "writable_root", "ray_metrics") if getattr(config, name)
    ]
    for volume in config.volumes:
        argv += ["--volume", volume]
    for variable in config.env:
        argv += ["--env", variable]
    for name, port in config.ray_ports:
        if port != getattr(default.ray_ports, name):
            argv += ["--ray-port", f"{name}={port}"]
    share = options_of(config).gpu_memory_utilization
    if share != options_of(default).gpu_memory_utilization:
        argv += ["--", f"--gpu-memory-utilization={share:g}"]  # what its own GPUs must have free
    return shlex.join(argv)
