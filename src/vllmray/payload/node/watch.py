"""Runs inside a Ray node's container: prints the state of the cluster as one JSON line at each change.

Standard library plus the container's own Ray.

Why not `ray status`: each call starts an interpreter and imports Ray (2.6 s measured) and shows what Ray's monitor saw
up to 5 s ago. This process imports Ray once (about 1 s) and queries the GCS itself, a few milliseconds a query, for the
data that `ray status` formats: `ray.autoscaler.v2.sdk.get_cluster_status` (ray 2.60, python/ray/autoscaler/v2/sdk.py).
Where that API is missing it runs `ray status -v` and reads the text.

A line is a RayStatus of protocol.py, or only its `{"error": str}` while Ray does not answer.
`shortfall` is empty when the GPUs suffice; `actors` is the number of vLLM's actors alive, with --actors and where Ray
reports it; `local_node_id` is set with --local-node. The text has no addresses: `ip` is then null and `is_head` false.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # in a container: the folder that holds vllmray's package
    sys.path[0] = str(Path(__file__).parents[3])

from vllmray.payload.protocol import ANOTHER_CLUSTER, RAY, EngineState, NodeStatus

NodeDict = dict[str, Any]
Snapshot = dict[str, Any]

TIMEOUT_S = 5
TEXT_INTERVAL_S = 2.0
_TEXT_TIMEOUT_S = 60.0
# vLLM's own names for its workers in Ray (vllm/v1/executor/ray_executor_v2.py; before 0.20, ray_utils.py).
ACTOR_CLASSES = ("RayWorkerProc", "RayWorkerWrapper")


def shortfall(
    nodes: list[NodeDict], *, tensor_parallel_size: int, pipeline_parallel_size: int, allow_tp_across_hosts: bool
) -> str:
    """The GPUs that the engine still lacks to start, in words; "" when it lacks none.

    A pipeline stage takes tensor_parallel_size GPUs of one node, unless allow_tp_across_hosts: then the total is
    enough. vLLM itself only warns when a stage does not fit in a node (vllm/v1/executor/ray_utils.py).
    """
    world_size = tensor_parallel_size * pipeline_parallel_size
    total = sum(int(node["gpus_total"]) for node in nodes)
    if total < world_size:
        return f"{total} of {world_size} GPUs"
    stages = sum(int(node["gpus_total"]) // tensor_parallel_size for node in nodes)
    if stages >= pipeline_parallel_size or allow_tp_across_hosts:
        return ""
    return (
        f"{total} GPUs, but nodes with {tensor_parallel_size} GPUs each for only {stages} "
        f"of {pipeline_parallel_size} pipeline stages"
    )


def parse_status_text(text: str) -> Snapshot:
    """The output of `ray status`, with or without -v, as a snapshot.

    Without -v the text has no GPUs per node: the cluster's total is then reported as one node named "cluster".
    """
    active = text.partition("Active:")[2].partition("Pending:")[0]
    ids = re.findall(r"^ +\d+ node_([0-9a-f]+)", active, re.MULTILINE)
    usage = {
        match["id"]: _gpus(match["body"])
        for match in re.finditer(r"^Node: (?P<id>[0-9a-f]+)[^\n]*\n(?P<body>(?:[ \t]+[^\n]*\n?)*)", text, re.MULTILINE)
    }
    nodes = [_text_node(node_id, *usage.get(node_id, (0.0, 0.0))) for node_id in ids]
    used, total = _gpus(text.partition("Total Usage:")[2].partition("From request_resources:")[0])
    if total and not usage:
        nodes = [_text_node("cluster", used, total)]
    demands = text.partition("Pending Demands:")[2].partition("\nNode:")[0]
    lines = (line.strip() for line in demands.splitlines())
    pending = [line for line in lines if line and not line.startswith("(no ")]
    return {"nodes": nodes, "pending": pending, "source": "text"}


def _gpus(text: str) -> tuple[float, float]:
    match = re.search(r"([\d.]+)/([\d.]+) GPU\b", text)
    return (float(match[1]), float(match[2])) if match else (0.0, 0.0)


def _text_node(node_id: str, used: float, total: float) -> NodeDict:
    return asdict(NodeStatus(node_id, None, is_head=False, gpus_total=total, gpus_used=used))


def snapshot_of(status: Any) -> Snapshot:
    """A snapshot of a ray.autoscaler.v2.schema.ClusterStatus; with only the nodes that Ray reports alive."""
    nodes = [_sdk_node(node) for node in (*status.active_nodes, *status.idle_nodes)]
    nodes.sort(key=lambda node: (not node["is_head"], node["ip"] or "", node["id"]))
    demands = status.resource_demands
    groups = (*demands.placement_group_demand, *demands.ray_task_actor_demand)
    pending = [f"{bundle.bundle} * {bundle.count}" for group in groups for bundle in group.bundles_by_count]
    return {"nodes": nodes, "pending": pending, "source": "sdk"}


def _sdk_node(node: Any) -> NodeDict:
    total, used = node.total_resources(), node.used_resources()
    return asdict(
        NodeStatus(
            node.node_id,
            node.ip_address,
            is_head="node:__internal_head__" in total,
            gpus_total=total.get("GPU", 0.0),
            gpus_used=used.get("GPU", 0.0),
        )
    )


def local_node_id(proc: Path = Path("/proc")) -> str | None:
    """The id of the Ray node whose raylet runs in this PID namespace, from the raylet's own command line.

    In the native runtime other nodes' raylets are visible too; ours is the one with this process's VLLMRAY_NODE.
    """
    mark = f"VLLMRAY_NODE={os.environ['VLLMRAY_NODE']}".encode() if "VLLMRAY_NODE" in os.environ else None
    for cmdline in proc.glob("[0-9]*/cmdline"):
        try:
            argv = cmdline.read_bytes().split(b"\0")
            environment = cmdline.with_name("environ").read_bytes().split(b"\0") if mark else []
        except OSError:
            continue
        if argv[0].endswith(b"/raylet") and (mark is None or mark in environment):
            return next((arg[10:].decode() for arg in argv if arg.startswith(b"--node_id=")), None)
    return None


def reader(address: str, *, actors: bool = False) -> tuple[Callable[[], Snapshot], float]:
    """A function that reads the cluster's state, by Ray's own API where this Ray has it, else by `ray status`; and the
    shortest sensible interval between reads in seconds.
    """
    try:
        from ray.autoscaler.v2 import sdk
    except ImportError:
        return lambda: parse_status_text(_status_text(address)), TEXT_INTERVAL_S
    # One client for all calls, where Ray makes one for each: that costs 2 ms a call, and 40 s instead of 5 to notice
    # that the GCS does not answer any more (measured with ray 2.60). The name is not public API: where it is missing,
    # each call makes its own client, and actors are not counted.
    client = getattr(sdk, "GcsClient", None)
    if client is not None:
        client = sdk.GcsClient = functools.cache(client)
    count = actor_counter(address, client) if actors and client is not None else lambda: None

    def read() -> Snapshot:
        try:
            return {**snapshot_of(sdk.get_cluster_status(address, timeout=TIMEOUT_S)), "actors": count()}
        except (AttributeError, TypeError) as error:  # this Ray's API differs
            return _told_in_text(address, f"{type(error).__name__}: {error}")

    return read, 0.0


def _told_in_text(address: str, why: str) -> Snapshot:
    """The cluster's state by `ray status`, where Ray's API differs from that of 2.60.

    Raises:
        RuntimeError: `ray status` failed as well; the text has both errors.
    """
    try:
        return parse_status_text(_status_text(address))
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        raise RuntimeError(
            f"this Ray's API differs from that of Ray 2.60 ({why}), and `ray status` failed: {error}"
        ) from error


def actor_counter(address: str, client: Callable[[str], Any]) -> Callable[[], int | None]:
    """Counts vLLM's actors that are alive, as the dashboard of Ray 2.60 does (python/ray/dashboard/modules/node)."""

    async def count() -> int:
        found = await client(address).async_get_all_actor_info(actor_state_name="ALIVE", timeout=TIMEOUT_S)
        return sum(actor.class_name in ACTOR_CLASSES for actor in found.values())

    def counted() -> int | None:
        try:
            return asyncio.run(count())
        except Exception as error:  # this Ray's API differs: actors are not counted, all else works
            if ANOTHER_CLUSTER in str(error):
                raise
            return None

    return counted


def _status_text(address: str) -> str:
    done = subprocess.run(
        [sys.executable, *RAY, "status", "-v", f"--address={address}"],
        capture_output=True, text=True, timeout=_TEXT_TIMEOUT_S, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError((done.stderr or done.stdout).strip()[-500:])
    return done.stdout


def observe(
    read: Callable[[], Snapshot], gate: Mapping[str, Any] | None, engine_state: Path | None, *, local: bool = False
) -> Snapshot:
    """One observation: the cluster (or the error), the GPUs that the engine lacks, the engine's own state."""
    try:
        seen = read()
        seen["local_node_id"] = local_node_id() if local else None
        if gate:
            seen["shortfall"] = shortfall(seen["nodes"], **gate)
    except Exception as error:  # Ray raises many kinds; each means: no answer now, retry
        seen = {"error": f"{type(error).__name__}: {error}"[:500]}
    if engine_state:
        seen["engine"] = read_engine_state(engine_state)
    return seen


def read_engine_state(path: Path) -> Any:
    """What launch.py last wrote, without its heartbeat and its view of the cluster; None before it first wrote."""
    try:
        state = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return {each.name: state.get(each.name) for each in fields(EngineState)}


def observations(options: argparse.Namespace) -> Iterator[Snapshot]:
    """Observations for ever, or one with --once; more often while GPUs are missing."""
    gate = json.loads(options.gate) if options.gate else None
    read, shortest = reader(options.address, actors=options.actors)
    while True:
        seen = observe(read, gate, options.engine_state, local=options.local_node)
        if ANOTHER_CLUSTER in str(seen.get("error")) and not options.once:
            # A process that has connected to a GCS refuses every other one, also one that was restarted at the same
            # address; only a new process accepts it.
            os.execv(sys.executable, [sys.executable, *sys.argv])  # nosec B606 # itself
        yield seen
        if options.once:
            return
        settled = gate is not None and seen.get("shortfall") == ""
        if seen.get("source") == "text":
            shortest = TEXT_INTERVAL_S
        time.sleep(max(shortest, options.idle_interval if settled else options.interval))


def leave_with_stdin() -> None:
    """Exit when standard input ends: Docker never ends an exec whose client disconnected."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def main(argv: list[str]) -> None:
    """Print a line at each change, and with --beat S at least every S seconds."""
    parser = argparse.ArgumentParser(prog="watch.py")
    parser.add_argument("--address", required=True)
    parser.add_argument("--gate", help="JSON: the keyword arguments of shortfall()")
    parser.add_argument("--engine-state", type=Path)
    parser.add_argument("--actors", action="store_true", help="count vLLM's actors")
    parser.add_argument("--local-node", action="store_true", help="report the id of this host's own Ray node")
    parser.add_argument("--interval", type=float, default=0.1)
    parser.add_argument("--idle-interval", type=float, default=1.0)
    parser.add_argument("--beat", type=float, default=float("inf"))
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--stdin", action="store_true", help="exit when standard input ends")
    options = parser.parse_args(argv)
    if options.stdin:
        leave_with_stdin()
    last, printed = "", 0.0
    for seen in observations(options):
        line = json.dumps(seen)
        if line != last or time.monotonic() - printed >= options.beat:
            print(line, flush=True)
            last, printed = line, time.monotonic()


if __name__ == "__main__":
    main(sys.argv[1:])
