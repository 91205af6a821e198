"""The containers of a host, from the settings and what was found on the host; pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from vllmray.cluster.spec import labels
from vllmray.cluster.spec.contents import (
    HOME,
    LAUNCH,
    NODE,
    RAY_TOKEN,
    SCRIPTS,
    SITE,
    START_HEAD,
    TLS_CERTIFICATE,
    TLS_KEY,
    Contents,
    Secrets,
)
from vllmray.cluster.spec.gpus import device_access
from vllmray.cluster.spec.mounts import engine_mounts, model_mount
from vllmray.cluster.spec.sizes import memory_share
from vllmray.config.models import DEFAULT_CLUSTER, ClusterConfig
from vllmray.config.resolved import ResolvedConfig
from vllmray.engine.argv import server_argv
from vllmray.hosts.base import NO_NEW_PRIVILEGES, SHARED_MEMORY, ContainerSpec, File, Mount
from vllmray.payload.protocol import CPU_SLOTS_SWITCH, GATE_SETTINGS, GUARD_SETTINGS
from vllmray.ray import argv as ray_argv
from vllmray.ray.argv import TEMP_DIR

CACHE = "/var/lib/vllmray/cache"
ENGINE_STATE = f"{TEMP_DIR}/vllmray/engine.json"
RDMA_DEVICES = ("/dev/infiniband",)
START_TIMEOUT_S = 3 * 3600
"""For an engine's first token, the download of a model included; an engine that hangs while it loads is killed then."""
UNPRIVILEGED_PORT = 1024  # the first that anyone may listen on (man 7 ip)


@dataclass(frozen=True, slots=True)
class Node:
    """What the plan must know of a host, found there or given: address, interface, number of GPUs for Ray.

    In a dry run, which starts nothing and so can't look, these may be placeholders.
    """

    ip: str
    interface: str
    gpus: int | str
    gpu_devices: tuple[str, ...] = ()
    """As gpus.device_access takes them."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Of the head's Ray node."""
    nccl: Mapping[str, str] = field(default_factory=dict)
    """NCCL's variables for the host's RDMA devices."""


def container_name(config: ClusterConfig, role: str) -> str:
    """One container of each role for a cluster on a host."""
    return f"{config.cluster}-{role}" if config.cluster == DEFAULT_CLUSTER else f"vllmray-{config.cluster}-{role}"


def gate(config: ClusterConfig) -> dict[str, object]:
    """What the engine needs of Ray's GPUs: the keyword arguments of watch.shortfall."""
    return {name: getattr(config, name) for name in GATE_SETTINGS}


def gcs_address(config: ClusterConfig) -> str:
    """HOST:PORT of the head's control store, as Ray takes it; of settings that name the head."""
    return f"{config.head_ip}:{config.ray_ports.gcs}"


def head_spec(config: ResolvedConfig, node: Node, contents: Contents) -> ContainerSpec:
    """The Ray head."""
    supervises = (f"--dashboard-port={config.ray_ports.dashboard}", f"--engine-state={ENGINE_STATE}")
    argv = ray_argv.start_head(
        (*_node_argv(config, *supervises), "python3", START_HEAD),
        node_ip=node.ip,
        gpus=node.gpus,
        object_store_memory=config.object_store_memory,
        ports=config.ray_ports,
        labels=node.labels,
    )
    return _spec(config, node, _Own(labels.HEAD, argv, contents.of_node(config), contents.secrets))


def worker_spec(config: ResolvedConfig, node: Node, contents: Contents) -> ContainerSpec:
    """A Ray worker that joins config.head_ip."""
    argv = ray_argv.start_worker(
        (
            *_node_argv(config, f"--head={gcs_address(config)}", *_own_memory(config)),
            *ray_argv.RAY,
        ),
        head_ip=config.head_ip,
        node_ip=node.ip,
        gpus=node.gpus,
        object_store_memory=config.object_store_memory,
        ports=config.ray_ports,
    )
    return _spec(config, node, _Own(labels.WORKER, argv, contents.of_node(config), contents.secrets))


def _node_argv(config: ClusterConfig, *more: str) -> tuple[str, ...]:
    """The program that starts Ray and supervises it; Ray's command and its arguments follow."""
    agent = f"--agent-port={config.ray_ports.dashboard_agent_listen}"
    return ("python3", NODE, f"--folder={TEMP_DIR}", agent, *more, "--")


def _own_memory(config: ClusterConfig) -> tuple[str, ...]:
    """The option that says that /dev/shm is the containers' own and may be cleared; processes use the machine's."""
    return () if config.runtime == "native" else ("--own-memory",)


def engine_spec(config: ResolvedConfig, node: Node, contents: Contents) -> ContainerSpec:
    """The vLLM server, in a container of its own on the head's host.

    It shares two folders in memory with the head: /tmp/ray, where the sockets of Ray and vLLM are, and /dev/shm. It
    shares no namespace: Docker does not start a container that joins a namespace of one that is not running, and its
    restart policy makes no second attempt (moby, daemon/monitor.go), so the engine would stay down whenever both end at
    once. launch.py provides what Ray's driver needs to see of the head's processes.
    """
    address = gcs_address(config)
    argv = (
        "python3",
        LAUNCH,
        f"--address={address}",
        f"--gate={json.dumps(gate(config), separators=(',', ':'))}",
        f"--state={ENGINE_STATE}",
        f"--port={config.port}",
        f"--stall-timeout={config.stall_timeout:g}",
        f"--start-timeout={START_TIMEOUT_S}",
        f"--dashboard-port={config.ray_ports.dashboard}",
        *(("--no-api-key",) if config.no_api_key else ()),
        *_room(config),
        *_own_memory(config),
        "--",
        *server_argv(config, _guard_argv(contents.secrets)),
    )
    guard = {"keyed": not config.no_api_key, "allow_routes": config.allow_routes}
    env = {"RAY_ADDRESS": address, GUARD_SETTINGS: json.dumps(guard)}
    own = _Own(labels.ENGINE, argv, contents.of_engine(config), contents.secrets, env, listen_capability(config))
    # In a network of containers both have one address: the node's.
    head = container_name(config, labels.HEAD)
    network = "host" if config.network == "host" else f"container:{head}"
    return replace(_spec(config, node, own), network=network, ip=None)


def _room(config: ClusterConfig) -> tuple[str, ...]:
    """The memory that must be free on the head's GPUs at each start of the engine; simulated ones have none."""
    share = memory_share(config)
    if share is None:
        return ()
    room = {"accelerator": config.accelerator, "share": share, "ranks": config.world_size}
    return (f"--room={json.dumps(room, separators=(',', ':'))}",)


def _guard_argv(secrets: Secrets) -> tuple[str, ...]:
    """The arguments that give vLLM's server the certificate, when there is one, and the guard."""
    tls = (f"--ssl-certfile={TLS_CERTIFICATE}", f"--ssl-keyfile={TLS_KEY}") if secrets.certificate else ()
    return (*tls, "--middleware=vllmray.payload.engine.guard.Guard")


@dataclass(frozen=True, slots=True)
class _Own:
    """What a container has that the others of its host do not."""

    role: str
    argv: tuple[str, ...]
    files: tuple[File, ...]
    secrets: Secrets
    env: Mapping[str, str] = field(default_factory=dict)
    cap_add: tuple[str, ...] = ()


def _spec(config: ResolvedConfig, node: Node, own: _Own) -> ContainerSpec:
    access = device_access(config, node.gpu_devices)
    return ContainerSpec(
        name=container_name(config, own.role),
        image=config.image,
        argv=own.argv,
        user=config.user,
        home=HOME,
        env={**_environment(config, node, own.secrets), **access.env, **own.env, **config.environment},
        labels=labels.container_labels(config, own.role, own.secrets.marks(own.role)),
        mounts=(*_mounts(config, own.role), *access.mounts),
        files=own.files,
        network=config.network,
        ip=own_address(config.network, node.ip),
        shm_size=config.shm_size if own.role == labels.WORKER else None,
        ulimits=_ulimits(config),
        devices=access.devices + (RDMA_DEVICES if config.rdma else ()),
        group_add=access.group_add,
        cap_add=(*access.cap_add, *(("IPC_LOCK",) if config.rdma else ()), *own.cap_add),
        security_opt=(NO_NEW_PRIVILEGES, *access.security_opt),
        read_only=not config.writable_root,
        gpus=access.request,
        restart="unless-stopped",
    )


def listen_capability(config: ClusterConfig) -> tuple[str, ...]:
    """The capability that a port below 1024 requires."""
    return ("NET_BIND_SERVICE",) if config.port < UNPRIVILEGED_PORT else ()


def own_address(network: str, ip: str | None) -> str | None:
    """In a network of its own a container takes the address that was planned; elsewhere it has the host's."""
    return None if network == "host" else ip


def _environment(config: ResolvedConfig, node: Node, secrets: Secrets) -> dict[str, str]:
    env = ray_argv.environment(
        node_ip=node.ip,
        interface=node.interface,
        ports=config.ray_ports,
        metrics=config.ray_metrics,
        token_path=RAY_TOKEN,
    )
    env |= {
        "HF_HOME": CACHE,
        "VLLM_CACHE_ROOT": f"{CACHE}/vllm",
        "VLLM_NO_USAGE_STATS": "1",
        # vLLM's processes of one node meet at sockets below this folder, /tmp by default (vllm/envs.py); the engine's
        # and the workers' are in two containers, which share no other folder. On the other hosts Ray makes it.
        "VLLM_RPC_BASE_PATH": TEMP_DIR,
    }
    env |= {**node.nccl, **secrets.variables()}
    if config.user:
        env["USER"] = "vllmray"  # a number that the image's /etc/passwd may not have: torch asks for a name (getpass)
    if "VLLM_USE_MODELSCOPE" in config.environment:
        env["MODELSCOPE_CACHE"] = f"{CACHE}/modelscope"  # else below the home directory, which goes with the container
    if config.accelerator == "cpu":
        env |= {CPU_SLOTS_SWITCH: "1", "PYTHONPATH": SITE}
    return env


def _mounts(config: ClusterConfig, role: str) -> tuple[Mount, ...]:
    mounts = [own_volume(config, role), cache_mount(config)]
    mounts += model_mount(config)
    owner = container_name(config, labels.WORKER if role == labels.WORKER else labels.HEAD)
    marks = labels.volume_labels(config)
    mounts.append(Mount("memory", f"{owner}-ray", TEMP_DIR, labels=marks))
    if role != labels.WORKER:
        # The size is in the name: Docker reuses an existing volume as it is, whatever size is asked for.
        name = f"{owner}-shm-{config.shm_size // 1024**2}m"
        mounts.append(Mount("memory", name, SHARED_MEMORY, size=config.shm_size, labels=marks))
    return (*mounts, *volume_mounts(config), *(engine_mounts(config) if role == labels.ENGINE else ()))


def cache_mount(config: ClusterConfig) -> Mount:
    """The model cache."""
    return Mount("bind", config.model_cache_dir, CACHE, create=True)


def volume_mounts(config: ClusterConfig) -> tuple[Mount, ...]:
    """The folders that --volume names."""
    return tuple(_volume(text) for text in config.volumes)


def _volume(text: str) -> Mount:
    source, target, *rest = text.split(":")
    return Mount("bind", source, target, read_only=rest != ["rw"])


def _ulimits(config: ClusterConfig) -> dict[str, int]:
    """RDMA registers its buffers in locked memory, which is then unlimited by default; else Docker's defaults hold."""
    limits = {"memlock": -1 if config.rdma and config.memlock is None else config.memlock, "nofile": config.nofile}
    return {name: limit for name, limit in limits.items() if limit is not None}


def own_volume(config: ClusterConfig, role: str) -> Mount:
    """The volume with the container's files and its home: the only writable part of its own file system.

    Labelled, so that `up` and `down` find it when somebody has removed the container with `docker rm`: it has secrets.
    """
    return Mount("own", "", SCRIPTS, labels=labels.volume_labels(config, role))
