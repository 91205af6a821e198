"""Ray's command lines and environment, from values; pure.

Flags: ray 2.60, python/ray/scripts/scripts.py.
"""

from __future__ import annotations

from collections.abc import Mapping

from vllmray.payload import protocol
from vllmray.ray.ports import RayPorts

DRAIN_TIMEOUT_S = 10
CLOSED_PORT = "65536"
"""No port at all: what Ray listens on there without asking for a token is not listened on."""
# How soon a loss is noticed (ray 2.60, src/ray/common/ray_config_def.h). The head asks each node every second, for two
# at most, and takes it for dead after three failures: 9 s after the power went (8.8 s measured; 64 s by default), while
# a network that is gone for 5 s costs nothing. A worker whose head is gone ends after 10 s, not 60; one whose head is
# another process than before, which will not have it, finds that out within 5 s, not 60, and is started again.
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
        command: what stands in the place of `ray`.
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

    - VLLM_HOST_IP: vLLM finds its address by a route to 8.8.8.8 otherwise (vllm/utils/network_utils.py).
    - *_SOCKET_IFNAME: Gloo binds to what the host name resolves to otherwise, often loopback. NCCL and RCCL, its fork,
      take every interface whose name begins so, eth1 and eth10, unless the value begins with "=" (NCCL's user guide,
      "Environment Variables"). Gloo and TensorPipe take the name as it is (gloo/transport/tcp/device.cc; with torch
      2.13 "eth" is no "eth0", and "=lo" is nothing).
    - RAY_memory_monitor_refresh_ms=0: Ray's memory monitor kills workers while they load large models.
    - RAY_DASHBOARD_STARTUP_TIMEOUT_S: `ray start` waits so long (60 s by default) for its dashboard, and then goes on
      without (ray/_private/services.py, start_api_server). One whose web page is not installed never answers.
    - RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S: a node told to stop waits this long for what runs on it, and all of it for
      a head that is gone (30 s by default; ray/_private/node.py). Only the engine runs there, and it goes first.
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
    """What whoever speaks to Ray needs: that there is a token, never left to Ray's guess, which differs between its
    commands (ray/_private/authentication/authentication_token_setup.py), and in which file it is.
    """
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": token_path}


def _metrics(ports: RayPorts, *, wanted: bool) -> dict[str, str]:
    """Three ports of a head, one of a worker, answer anyone, token or not; so they are closed unless they are wanted.

    Two have no flag, only a variable (ray/autoscaler/_private/constants.py, ray/dashboard/consts.py); where they can't
    listen, Ray notes it in a log of its own and goes on (ray/autoscaler/v2/monitor.py, ray/dashboard/head.py). The
    third goes with the collection of metrics (RAY_enable_metrics_collection, src/ray/common/ray_config_def.h).
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
