"""Ray's command lines and environment, from values; pure.

Flags: ray 2.60, python/ray/scripts/scripts.py.
"""

from __future__ import annotations

from vllmray.ray.ports import RayPorts

DRAIN_TIMEOUT_S = 10


def start_head(*, node_ip: str, gpus: int | str, object_store_memory: int, ports: RayPorts) -> tuple[str, ...]:
    """`ray start --head`, in the foreground. object_store_memory in bytes.

    --ray-client-server-port is given only when it is not Ray's own default: an image with plain `ray` (not
    ray[default]) refuses the flag, and starts no client server anyway.
    """
    argv = [
        "ray",
        "start",
        "--head",
        f"--port={ports.gcs}",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={ports.dashboard}",
        *_node(node_ip=node_ip, gpus=gpus, object_store_memory=object_store_memory, ports=ports),
        "--disable-usage-stats",
    ]
    if ports.client_server != RayPorts().client_server:
        argv.append(f"--ray-client-server-port={ports.client_server}")
    return tuple(argv)


def start_worker(
    *, head_ip: str, node_ip: str, gpus: int | str, object_store_memory: int, ports: RayPorts
) -> tuple[str, ...]:
    """`ray start --address`, in the foreground. object_store_memory in bytes."""
    node = _node(node_ip=node_ip, gpus=gpus, object_store_memory=object_store_memory, ports=ports)
    return ("ray", "start", f"--address={head_ip}:{ports.gcs}", *node)


def _node(*, node_ip: str, gpus: int | str, object_store_memory: int, ports: RayPorts) -> tuple[str, ...]:
    return (
        f"--node-ip-address={node_ip}",
        f"--num-gpus={gpus}",
        f"--object-store-memory={object_store_memory}",
        f"--node-manager-port={ports.node_manager}",
        f"--object-manager-port={ports.object_manager}",
        f"--runtime-env-agent-port={ports.runtime_env_agent}",
        f"--dashboard-agent-grpc-port={ports.dashboard_agent_grpc}",
        f"--dashboard-agent-listen-port={ports.dashboard_agent_listen}",
        f"--metrics-export-port={ports.metrics_export}",
        f"--min-worker-port={ports.min_worker}",
        f"--max-worker-port={ports.max_worker}",
        "--log-style=record",
        "--log-color=false",
        "--block",
    )


def environment(*, node_ip: str, interface: str, ports: RayPorts) -> dict[str, str]:
    """What every container of a node needs, so that Ray, vLLM and the collectives agree on one address.

    - VLLM_HOST_IP: vLLM finds its address by a route to 8.8.8.8 otherwise (vllm/utils/network_utils.py).
    - *_SOCKET_IFNAME: Gloo binds to what the host name resolves to otherwise, often loopback.
    - RAY_AUTH_MODE: never left to Ray's guess, which differs between its commands.
    - RAY_memory_monitor_refresh_ms=0: Ray's memory monitor kills workers while they load large models.
    - RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S: a node told to stop waits this long for what runs on it, and all of it for
      a head that is gone (30 s by default; ray/_private/node.py). Only the engine runs there, and it goes first.
    - the two metric ports have no flag (ray/autoscaler/_private/constants.py, ray/dashboard/consts.py).
    """
    return {
        "VLLM_HOST_IP": node_ip,
        "GLOO_SOCKET_IFNAME": interface,
        "NCCL_SOCKET_IFNAME": interface,
        "TP_SOCKET_IFNAME": interface,
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_memory_monitor_refresh_ms": "0",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": str(DRAIN_TIMEOUT_S),
        "AUTOSCALER_METRIC_PORT": str(ports.autoscaler_metrics),
        "DASHBOARD_METRIC_PORT": str(ports.dashboard_metrics),
    }
