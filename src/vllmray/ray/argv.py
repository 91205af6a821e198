"""Builds Ray's command lines and environment; pure.

Flags: ray 2.60, python/ray/scripts/scripts.py.
"""

from __future__ import annotations

from collections.abc import Mapping

from vllmray.payload import protocol
from vllmray.ray.ports import RayPorts

DRAIN_TIMEOUT_S = 10
CLOSED_PORT = "65536"
"""An invalid port: Ray then does not open that listener, which would answer without a token."""
# How soon a loss is noticed (ray 2.60, src/ray/common/ray_config_def.h). The head checks each node every second with a
# timeout of 2 s, and declares it dead after 3 failures: 9 s after a power failure (8.8 s measured; 64 s by default),
# while a network outage of 5 s costs nothing. A worker that lost its head exits after 10 s, not 60; one whose head was
# restarted, and so rejects it, notices within 5 s, not 60, and is restarted.
LOSS = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
    "RAY_raylet_liveness_self_check_interval_ms": "5000",
}
RAY = ("python3", *protocol.RAY)
TEMP_DIR = "/tmp/ray"  # nosec B108 # Ray's own default, inside a container


def start_head(
    command: tuple[str, ...],
    *,
    node_ip: str,
    gpus: int | str,
    object_store_memory: int,
    ports: RayPorts,
    labels: Mapping[str, str],
) -> tuple[str, ...]:
    """`ray start --head`, in the foreground. object_store_memory in bytes.

    Args:
        command: the program to run in place of `ray`, with its first arguments.
    """
    argv = [
        *command,
        "start",
        "--head",
        f"--port={ports.gcs}",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={ports.dashboard}",
        *_node(node_ip=node_ip, gpus=gpus, object_store_memory=object_store_memory, ports=ports),
        "--disable-usage-stats",
    ]
    if labels:
        argv.append("--labels=" + ",".join(f"{name}={value}" for name, value in labels.items()))
    return tuple(argv)


def start_worker(
    command: tuple[str, ...], *, head_ip: str, node_ip: str, gpus: int | str, object_store_memory: int, ports: RayPorts
) -> tuple[str, ...]:
    """`ray start --address`, in the foreground. object_store_memory in bytes; command as for start_head."""
    node = _node(node_ip=node_ip, gpus=gpus, object_store_memory=object_store_memory, ports=ports)
    return (*command, "start", f"--address={head_ip}:{ports.gcs}", *node)


def _node(*, node_ip: str, gpus: int | str, object_store_memory: int, ports: RayPorts) -> tuple[str, ...]:
    return (
        f"--node-ip-address={node_ip}",
        f"--temp-dir={TEMP_DIR}",
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


def environment(*, node_ip: str, interface: str, ports: RayPorts, metrics: bool, token_path: str) -> dict[str, str]:
    """What every container of a node needs, so that Ray, vLLM and the collectives agree on one address.

    - VLLM_HOST_IP: without it vLLM finds its address by a route to 8.8.8.8 (vllm/utils/network_utils.py).
    - *_SOCKET_IFNAME: without it Gloo binds to what the host name resolves to, often loopback. NCCL and its fork RCCL
      match the value as a prefix, so eth1 selects eth10 too, unless it begins with "=" (NCCL's user guide,
      "Environment Variables"). Gloo and TensorPipe require the exact name (gloo/transport/tcp/device.cc; with torch
      2.13 "eth" does not select eth0, and "=lo" selects nothing).
    - RAY_memory_monitor_refresh_ms=0: Ray's memory monitor kills workers while they load large models.
    - RAY_DASHBOARD_STARTUP_TIMEOUT_S: `ray start` waits so long (60 s by default) for its dashboard, and then continues
      without (ray/_private/services.py, start_api_server). A dashboard whose web page is not installed never answers.
    - RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S: a stopping node waits up to this long for what runs on it, and always this
      long for a lost head (30 s by default; ray/_private/node.py). Only the engine runs there, and it is stopped first.
    """
    return {
        "VLLM_HOST_IP": node_ip,
        "GLOO_SOCKET_IFNAME": interface,
        "NCCL_SOCKET_IFNAME": f"={interface}",
        "TP_SOCKET_IFNAME": interface,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_memory_monitor_refresh_ms": "0",
        "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "15",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": str(DRAIN_TIMEOUT_S),
        **LOSS,
        **authentication(token_path),
        **_metrics(ports, wanted=metrics),
    }


def authentication(token_path: str) -> dict[str, str]:
    """What every client of Ray needs: token mode, set explicitly since the default differs between Ray's commands
    (ray/_private/authentication/authentication_token_setup.py), and the token's file.
    """
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": token_path}


def _metrics(ports: RayPorts, *, wanted: bool) -> dict[str, str]:
    """Three ports of a head and one of a worker answer without a token; so they are closed unless --ray-metrics.

    Two have no flag, only a variable (ray/autoscaler/_private/constants.py, ray/dashboard/consts.py); where they can't
    listen, Ray logs that and continues (ray/autoscaler/v2/monitor.py, ray/dashboard/head.py). The third is closed with
    the collection of metrics (RAY_enable_metrics_collection, src/ray/common/ray_config_def.h).
    """
    if wanted:
        return {
            "AUTOSCALER_METRIC_PORT": str(ports.autoscaler_metrics),
            "DASHBOARD_METRIC_PORT": str(ports.dashboard_metrics),
        }
    return {
        "AUTOSCALER_METRIC_PORT": CLOSED_PORT,
        "DASHBOARD_METRIC_PORT": CLOSED_PORT,
        "RAY_enable_metrics_collection": "0",
    }
