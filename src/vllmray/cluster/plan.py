"""From settings and what a host is to the containers of it; pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from vllmray.cluster import labels
from vllmray.cluster.gpus import device_access
from vllmray.config.models import DEFAULT_CLUSTER, ClusterConfig
from vllmray.engine.argv import server_argv
from vllmray.engine.cpu_platform import ENVIRONMENT_SWITCH
from vllmray.hosts.base import ContainerSpec, File, Mount
from vllmray.ray import argv as ray_argv

# Paths inside the containers.
SCRIPTS = "/vllmray"
WATCH = f"{SCRIPTS}/watch.py"
LAUNCH = f"{SCRIPTS}/launch.py"
TOKEN = f"{SCRIPTS}/secrets/hf_token"
CACHE = "/var/lib/vllmray/cache"
RAY_TEMP = "/tmp/ray"  # the default of `ray start --temp-dir`; vLLM looks for a cluster there
ENGINE_STATE = f"{RAY_TEMP}/vllmray/engine.json"


@dataclass(frozen=True, slots=True)
class Node:
    """What the plan must know of a host, found there or given: address, interface, number of GPUs for Ray.

    In a dry run, which starts nothing and so can't look, these may be placeholders.
    """

    ip: str
    interface: str
    gpus: int | str
    cdi_devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scripts:
    """The texts of the two programs that run inside containers."""

    watch: bytes
    launch: bytes


def container_name(config: ClusterConfig, role: str) -> str:
    """One container of each role for a cluster on a host."""
    return f"{config.cluster}-{role}" if config.cluster == DEFAULT_CLUSTER else f"vllmray-{config.cluster}-{role}"


# The settings that are keyword arguments of ray.watch.shortfall.
GATE_SETTINGS = ("tensor_parallel_size", "pipeline_parallel_size", "allow_tp_across_hosts")


def gate(config: ClusterConfig) -> dict[str, object]:
    """What the GPUs must suffice for: the keyword arguments of ray.watch.shortfall."""
    return {name: getattr(config, name) for name in GATE_SETTINGS}


def gcs_address(config: ClusterConfig, head_ip: str) -> str:
    """HOST:PORT of the head's control store, as Ray takes it."""
    return f"{head_ip}:{config.ray_ports.gcs}"


def head_spec(config: ClusterConfig, node: Node, scripts: Scripts) -> ContainerSpec:
    """The Ray head; its IPC namespace and /tmp/ray are there for the engine to share."""
    argv = ray_argv.start_head(
        node_ip=node.ip,
        gpus=node.gpus,
        object_store_memory=config.object_store_memory,
        ports=config.ray_ports,
    )
    files = (File(WATCH, scripts.watch),)
    return _node_spec(config, node, role=labels.HEAD, argv=argv, files=files, ipc="shareable")


def worker_spec(config: ClusterConfig, node: Node, scripts: Scripts) -> ContainerSpec:
    """A Ray worker that joins config.head_ip."""
    argv = ray_argv.start_worker(
        head_ip=str(config.head_ip),
        node_ip=node.ip,
        gpus=node.gpus,
        object_store_memory=config.object_store_memory,
        ports=config.ray_ports,
    )
    files = (File(WATCH, scripts.watch),)
    return _node_spec(config, node, role=labels.WORKER, argv=argv, files=files, ipc="private")


def engine_spec(config: ClusterConfig, node: Node, scripts: Scripts) -> ContainerSpec:
    """The vLLM server beside the head.

    It shares the head's PID namespace, since Ray's driver looks for its raylet among the processes it sees (ray
    issue 63923), its IPC namespace, since raylet and driver share /dev/shm, and /tmp/ray, where their sockets are.
    Without an init of its own: a zombie here is the child of the head's.
    """
    address = gcs_address(config, node.ip)
    argv = (
        "python3",
        LAUNCH,
        f"--address={address}",
        f"--gate={json.dumps(gate(config), separators=(',', ':'))}",
        f"--state={ENGINE_STATE}",
        f"--port={config.port}",
        "--",
        *server_argv(config),
    )
    files = (File(WATCH, scripts.watch), File(LAUNCH, scripts.launch))
    head = container_name(config, labels.HEAD)
    return _spec(
        config,
        node,
        role=labels.ENGINE,
        argv=argv,
        files=files,
        sharing=_Sharing(ipc=f"container:{head}", pid=f"container:{head}", shm_size=None, init=False),
        env={"RAY_ADDRESS": address},
    )


@dataclass(frozen=True, slots=True)
class _Sharing:
    """Namespaces of a container, and what comes with having one's own."""

    ipc: str
    pid: str | None
    shm_size: int | None
    init: bool


def _node_spec(
    config: ClusterConfig, node: Node, *, role: str, argv: tuple[str, ...], files: tuple[File, ...], ipc: str
) -> ContainerSpec:
    sharing = _Sharing(ipc=ipc, pid=None, shm_size=config.shm_size, init=True)
    return _spec(config, node, role=role, argv=argv, files=files, sharing=sharing, env={})


def _spec(  # noqa: PLR0913  # one place where all parts of a container meet
    config: ClusterConfig,
    node: Node,
    *,
    role: str,
    argv: tuple[str, ...],
    files: tuple[File, ...],
    sharing: _Sharing,
    env: Mapping[str, str],
) -> ContainerSpec:
    access = device_access(config, node.cdi_devices)
    return ContainerSpec(
        name=container_name(config, role),
        image=config.image,
        argv=argv,
        env={**_environment(config, node), **env, **user_environment(config)},
        labels=labels.container_labels(config, role),
        mounts=_mounts(config, role),
        files=files + _secrets(config),
        ipc=sharing.ipc,
        pid=sharing.pid,
        shm_size=sharing.shm_size,
        ulimits=_ulimits(config),
        devices=access.devices,
        group_add=access.group_add,
        cap_add=access.cap_add,
        security_opt=access.security_opt,
        gpus=access.request,
        restart="unless-stopped",
        init=sharing.init,
    )


def probe_spec(config: ClusterConfig, cdi_devices: tuple[str, ...], script: str, request: str) -> ContainerSpec:
    """A short-lived container of the node's image, with the node's GPUs and network, that runs hosts/node_probe.py."""
    access = device_access(config, cdi_devices)
    return ContainerSpec(
        name=container_name(config, labels.PROBE),
        image=config.image,
        argv=("python3", "-c", script, request),
        env=user_environment(config),
        labels=labels.selector(config.cluster, labels.PROBE),
        mounts=tuple(_volume(text) for text in config.volumes),
        devices=access.devices,
        group_add=access.group_add,
        gpus=access.request,
    )


def user_environment(config: ClusterConfig) -> dict[str, str]:
    """--env, as a mapping."""
    return dict(text.split("=", 1) for text in config.env)


def _environment(config: ClusterConfig, node: Node) -> dict[str, str]:
    env = ray_argv.environment(node_ip=node.ip, interface=node.interface, ports=config.ray_ports)
    env |= {
        "HF_HOME": CACHE,
        "VLLM_CACHE_ROOT": f"{CACHE}/vllm",
        "VLLM_NO_USAGE_STATS": "1",
        # vLLM's processes of one node meet at sockets below this folder, /tmp by default (vllm/envs.py); the engine's
        # and the workers' are in two containers, which share no other folder. On the other hosts Ray makes it.
        "VLLM_RPC_BASE_PATH": RAY_TEMP,
    }
    if config.hf_token:
        env["HF_TOKEN_PATH"] = TOKEN  # read by huggingface_hub (constants.py), so that no environment holds the token
    if config.accelerator == "cpu":
        env[ENVIRONMENT_SWITCH] = "1"
    return env


def _mounts(config: ClusterConfig, role: str) -> tuple[Mount, ...]:
    mounts = [Mount("bind", config.model_cache_dir, CACHE, create=True)]
    if config.model_is_a_folder:
        mounts.append(Mount("bind", config.model, config.model, read_only=True))
    if role in (labels.HEAD, labels.ENGINE):
        volume = f"{container_name(config, labels.HEAD)}-ray"
        mounts.append(Mount("memory", volume, RAY_TEMP, labels=labels.volume_labels(config)))
    return (*mounts, *(_volume(text) for text in config.volumes))


def _volume(text: str) -> Mount:
    source, target, *rest = text.split(":")
    return Mount("bind", source, target, read_only=rest == ["ro"])


def _secrets(config: ClusterConfig) -> tuple[File, ...]:
    if config.hf_token is None:
        return ()
    return (File(TOKEN, config.hf_token.get_secret_value().encode(), mode=0o600, secret=True),)


def _ulimits(config: ClusterConfig) -> dict[str, int]:
    limits = {"memlock": config.memlock, "nofile": config.nofile}
    return {name: limit for name, limit in limits.items() if limit is not None}
