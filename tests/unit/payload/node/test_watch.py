"""What watch.py makes of Ray's answers; the texts in tests/unit/data/ray_status were printed by a real Ray 2.60."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vllmray.payload.node.watch import (
    actor_counter,
    local_node_id,
    observe,
    parse_status_text,
    read_engine_state,
    reader,
    shortfall,
    snapshot_of,
)
from vllmray.payload.protocol import RAY, RayStatus
from vllmray.ray.status import parse_line

DATA = Path(__file__).parents[2] / "data" / "ray_status"


def nodes(*gpus: float) -> list[dict[str, Any]]:
    return [{"gpus_total": count} for count in gpus]


@pytest.mark.parametrize(
    ("gpus", "tensor", "pipeline", "across", "lacks"),
    [
        ((), 2, 2, False, "0 of 4 GPUs"),
        ((2,), 2, 2, False, "2 of 4 GPUs"),
        ((2, 2), 2, 2, False, ""),
        ((4,), 2, 2, False, ""),
        ((8, 8), 2, 2, False, ""),
        ((3, 1), 2, 2, False, "4 GPUs, but nodes with 2 GPUs each for only 1 of 2 pipeline stages"),
        ((1, 1, 1, 1), 2, 2, False, "4 GPUs, but nodes with 2 GPUs each for only 0 of 2 pipeline stages"),
        ((1, 1, 1, 1), 2, 2, True, ""),
        ((1, 1), 1, 2, False, ""),
        ((3, 3), 2, 2, False, ""),
        ((1.5, 0.5), 1, 2, False, "1 of 2 GPUs"),
    ],
)
def test_what_is_lacking(gpus: tuple[float, ...], tensor: int, pipeline: int, across: bool, lacks: str) -> None:
    found = shortfall(
        nodes(*gpus), tensor_parallel_size=tensor, pipeline_parallel_size=pipeline, allow_tp_across_hosts=across
    )
    assert found == lacks


def text(name: str) -> RayStatus:
    """A captured text as the CLI would see it."""
    snapshot = parse_status_text((DATA / f"{name}.txt").read_text())
    status = parse_line(json.dumps(snapshot))
    assert status is not None
    assert status.source == "text"
    return status


def gpus(status: RayStatus) -> list[tuple[float, float]]:
    return [(node.gpus_used, node.gpus_total) for node in status.nodes]


def test_text_right_after_the_start_has_no_nodes() -> None:
    assert text("starting").nodes == ()


def test_text_of_a_lone_head() -> None:
    assert gpus(text("head-alone")) == [(0, 1)]


def test_text_of_two_idle_nodes() -> None:
    status = text("two-idle")
    assert gpus(status) == [(0, 1), (0, 1)]
    assert status.pending == ()
    assert all(len(node.id) == 56 and node.ip is None for node in status.nodes)


def test_text_of_nodes_that_an_engine_uses() -> None:
    assert gpus(text("serving")) == [(1, 1), (1, 1)]


def test_text_of_a_demand_that_does_not_fit() -> None:
    status = text("demand-pending")
    assert status.gpus_total == 2
    assert len(status.pending) == 1
    assert "'GPU': 1.0} * 4" in status.pending[0]


def test_text_without_the_nodes_has_the_total_as_one_node() -> None:
    status = text("two-idle-brief")
    assert gpus(status) == [(0, 2)]
    assert status.nodes[0].id == "cluster"


def test_text_after_a_node_died_has_only_the_living() -> None:
    assert gpus(text("worker-dead")) == [(0, 1)]


def test_text_of_nodes_without_gpus() -> None:
    assert [total for _, total in gpus(text("no-gpus"))] == [0]


def sdk_node(ip: str, used: float, total: float, *, head: bool = False) -> Any:
    resources = {"GPU": total, "CPU": 2.0} | ({"node:__internal_head__": 1.0} if head else {})
    return SimpleNamespace(
        node_id=f"id-{ip}",
        ip_address=ip,
        total_resources=lambda: resources,
        used_resources=lambda: {"GPU": used, "CPU": 0.0},
    )


def test_the_sdks_nodes_are_told_head_first() -> None:
    demand = SimpleNamespace(bundles_by_count=[SimpleNamespace(bundle={"GPU": 1.0}, count=2)])
    status = SimpleNamespace(
        active_nodes=[sdk_node("10.0.0.2", 1, 1)],
        idle_nodes=[sdk_node("10.0.0.1", 0, 1, head=True)],
        resource_demands=SimpleNamespace(placement_group_demand=[demand], ray_task_actor_demand=[]),
    )
    assert snapshot_of(status) == {
        "nodes": [
            {"id": "id-10.0.0.1", "ip": "10.0.0.1", "is_head": True, "gpus_total": 1, "gpus_used": 0},
            {"id": "id-10.0.0.2", "ip": "10.0.0.2", "is_head": False, "gpus_total": 1, "gpus_used": 1},
        ],
        "pending": ["{'GPU': 1.0} * 2"],
        "source": "sdk",
    }


def test_an_error_of_ray_is_an_observation() -> None:
    def read() -> dict[str, Any]:
        raise ConnectionError("no GCS")

    assert observe(read, None, None) == {"error": "ConnectionError: no GCS"}


def test_an_observation_says_what_the_gate_lacks_and_what_the_engine_does(tmp_path: Path) -> None:
    state = tmp_path / "engine.json"
    gate = {"tensor_parallel_size": 1, "pipeline_parallel_size": 2, "allow_tp_across_hosts": False}
    found = observe(lambda: {"nodes": nodes(1)}, gate, state)
    assert (found["shortfall"], found["engine"]) == ("1 of 2 GPUs", None)
    said = {"phase": "waiting", "detail": "d", "since": 1.5, "deaths": 2, "missing_since": 1.5}
    state.write_text(json.dumps({**said, "heartbeat": 99, "ray": {}}))
    assert read_engine_state(state) == said
    state.write_text('{"phase": "wai')
    assert read_engine_state(state) is None


def test_the_local_node_is_read_off_the_raylets_command_line(tmp_path: Path) -> None:
    for pid, argv in {"1": b"/sbin/init\0", "20": b"/x/raylet/raylet\0--node_id=abc\0--node_ip_address=1\0"}.items():
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "cmdline").write_bytes(argv)
    (tmp_path / "7").mkdir()
    assert local_node_id(tmp_path) == "abc"
    assert local_node_id(tmp_path / "nowhere") is None


def test_where_ray_gives_no_addresses_the_local_node_is_found_by_its_id() -> None:
    status = text("two-idle")
    second = status.nodes[1].id
    assert status.node("10.0.0.2") is None
    assert replace(status, local_node_id=second).node("10.0.0.2") == status.nodes[1]


def test_a_line_that_is_none_of_ours_is_passed_over() -> None:
    assert parse_line("2026-11-23 WARNING something of Ray's") is None
    assert parse_line('{"nodes": 3}') is None


def a_gcs_that_says(answer: Any) -> Any:
    """A client's class, as Ray has it."""

    class GcsClient:
        def __init__(self, address: str) -> None:
            assert address == "10.0.0.1:6379"

        async def async_get_all_actor_info(self, **asked: Any) -> Any:
            assert asked == {"actor_state_name": "ALIVE", "timeout": 5}
            return answer()

    return GcsClient


def test_actors_of_vllm_are_counted_and_those_of_others_are_not() -> None:
    names = ("RayWorkerProc", "RayWorkerProc", "RayWorkerWrapper", "SomebodyElses")
    actors = {number: SimpleNamespace(class_name=name) for number, name in enumerate(names)}
    assert actor_counter("10.0.0.1:6379", a_gcs_that_says(lambda: actors))() == 3


@pytest.mark.parametrize("client", [a_gcs_that_says(lambda: 1 / 0), lambda address: object()])
def test_a_ray_that_can_not_count_actors_counts_none_and_is_no_error(client: Any) -> None:
    assert actor_counter("10.0.0.1:6379", client)() is None


def test_of_another_cluster_at_the_same_address_the_counter_tells() -> None:
    def another() -> None:
        raise RuntimeError("WrongClusterID: Perhaps the client is accessing GCS after it has restarted.")

    with pytest.raises(RuntimeError, match="WrongClusterID"):
        actor_counter("10.0.0.1:6379", a_gcs_that_says(another))()


def test_one_client_serves_all_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Client:
        def __init__(self, address: str) -> None:
            made.append(address)

    sdk = SimpleNamespace(GcsClient=Client)

    def get_cluster_status(address: str, timeout: int) -> Any:
        assert timeout == 5
        sdk.GcsClient(address)
        demands = SimpleNamespace(placement_group_demand=[], ray_task_actor_demand=[])
        return SimpleNamespace(active_nodes=[], idle_nodes=[], resource_demands=demands)

    sdk.get_cluster_status = get_cluster_status
    for name in ("ray", "ray.autoscaler"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace())
    monkeypatch.setitem(sys.modules, "ray.autoscaler.v2", SimpleNamespace(sdk=sdk))
    read, _ = reader("10.0.0.1:6379")
    assert [read()["nodes"], read()["nodes"]] == [[], []]
    assert made == ["10.0.0.1:6379"]


def a_ray_with(sdk: object, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ray", "ray.autoscaler"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace())
    monkeypatch.setitem(sys.modules, "ray.autoscaler.v2", SimpleNamespace(sdk=sdk))


def test_a_ray_without_the_client_that_is_shared_is_read_all_the_same_and_counts_no_actors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    demands = SimpleNamespace(placement_group_demand=[], ray_task_actor_demand=[])
    status = SimpleNamespace(active_nodes=[], idle_nodes=[], resource_demands=demands)
    a_ray_with(SimpleNamespace(get_cluster_status=lambda address, timeout: status), monkeypatch)
    read, _ = reader("10.0.0.1:6379", actors=True)
    assert read() == {"nodes": [], "pending": [], "source": "sdk", "actors": None}


@pytest.mark.parametrize("sdk", [
    SimpleNamespace(),
    SimpleNamespace(get_cluster_status=lambda address: None),
    SimpleNamespace(get_cluster_status=lambda address, timeout: SimpleNamespace(nodes=[])),
])  # fmt: skip
def test_a_ray_whose_api_has_another_shape_is_read_by_its_text_and_says_so_where_that_fails_too(
    sdk: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_ray_with(sdk, monkeypatch)
    read, _ = reader("10.0.0.1:6379")
    python = tmp_path / "python"
    monkeypatch.setattr(sys, "executable", str(python))
    python.write_text(
        f"#!/bin/sh\n[ \"$*\" = '{' '.join(RAY)} status -v --address=10.0.0.1:6379' ] && cat {DATA}/two-idle.txt\n"
    )
    python.chmod(0o755)
    seen = observe(read, None, None)
    assert (len(seen["nodes"]), seen["source"]) == (2, "text")
    python.write_text("#!/bin/sh\necho no such command >&2; exit 2\n")
    error = observe(read, None, None)["error"]
    assert "this Ray's API differs from that of Ray 2.60" in error
    assert "`ray status` failed: no such command" in error
