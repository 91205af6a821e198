"""`up` on DGX Sparks: the share of unified memory, swap, and the RDMA devices that NCCL is given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.fake_host import FakeHost
from tests.unit.cluster.test_up import HEAD, READY, WORKER
from tests.unit.spark import ADDRESS, ONE_CABLE, sysfs
from tests.unit.support import RecordingReporter, card, config, good_host, probe_answer, seen
from vllmray.cluster.run import UpOptions
from vllmray.cluster.up import up_head, up_worker
from vllmray.errors import ClusterStateError
from vllmray.hosts.base import ContainerSpec
from vllmray.payload.probes.rdma import rdma_ports

KIB, GIB = 1024, 1024**3
SWAP = {"total": 16777212 * KIB, "used": 0}
HCAS = "=rocep1s0f0:1,roceP2p1s0f0:1"
QUICK = UpOptions(wait=False)


def gb10(free: int = 118566368 * KIB) -> dict[str, Any]:
    return card(127600748 * KIB, free=free, unified=True, name="NVIDIA GB10")


def answer(**changes: Any) -> str:
    usual = {"node_ip": ADDRESS, "interface": "enp1s0f0np0", "gpus": 1, "cards": [gb10()]}
    return probe_answer(**usual | changes)


def spark(*answers: str, watch: Sequence[str] = READY) -> FakeHost:
    return good_host(*watch, probes=list(answers) or [answer()])


def head(host: FakeHost, reporter: RecordingReporter | None = None, *, recreate: bool = False, **fields: Any) -> None:
    usual = {"accelerator": "nvidia", "pipeline_parallel_size": 2}
    options = UpOptions(wait=False, recreate=recreate)
    up_head(host, config(**usual | fields), options, reporter or RecordingReporter())


def made(host: FakeHost, role: str) -> ContainerSpec:
    return next(spec for spec in reversed(host.created) if spec.name == f"vllmray-{role}")


@pytest.fixture
def ports(tmp_path: Path) -> list[dict[str, Any]]:
    return rdma_ports(sysfs(tmp_path, ONE_CABLE))


def test_the_engine_takes_what_is_available_but_for_the_hosts_reserve_and_the_worker_is_told() -> None:
    host, reporter = spark(), RecordingReporter()
    head(host, reporter)
    assert "--gpu-memory-utilization=0.86" in made(host, "engine").argv
    assert (
        "fake://host: unified memory: 113.1 of 121.7 GiB are available, the engine takes 104.7 "
        "(--gpu-memory-utilization 0.86)"
    ) in reporter.lines
    assert "-- --gpu-memory-utilization=0.86\n" in reporter.text()


def test_a_share_that_the_user_sets_is_kept_and_one_that_is_too_large_is_a_warning() -> None:
    host, reporter = spark(), RecordingReporter()
    head(host, reporter, vllm_args=("--gpu-memory-utilization", "0.9"))
    assert [word for word in made(host, "engine").argv if "memory-utilization" in word] == ["--gpu-memory-utilization"]
    (warning,) = (line for line in reporter.lines if line.startswith("warning"))
    assert warning.startswith("warning: fake://host: unified memory: 113.1 of 121.7 GiB are available")
    assert "leaves 3.6 GiB" in warning


def test_the_same_again_keeps_the_engine_though_less_is_available_by_then() -> None:
    host = spark(answer(), answer(cards=[gb10(free=5 * GIB)]))
    head(host)
    reporter = RecordingReporter()
    head(host, reporter)
    assert "vLLM server: = running already" in reporter.lines
    assert "unified memory" not in reporter.text()
    with pytest.raises(ClusterStateError) as caught:
        head(host, max_model_len=8192)
    assert (caught.value.details or "").splitlines() == ["max_model_len: 4096 → 8192"]


def test_an_engine_that_replaces_another_takes_as_much() -> None:
    host = spark(answer(), answer(cards=[gb10(free=5 * GIB)]), answer())
    head(host)
    head(host, recreate=True, max_model_len=8192)
    assert "--gpu-memory-utilization=0.86" in made(host, "engine").argv


def test_gpus_with_memory_of_their_own_have_vllms_share() -> None:
    host, reporter = spark(answer(cards=[card()], swap=SWAP)), RecordingReporter()
    head(host, reporter)
    assert not any("memory-utilization" in word for word in made(host, "engine").argv)
    assert "unified" not in reporter.text()
    assert "warning" not in reporter.text()


def test_swap_on_a_host_with_unified_memory_is_a_warning_of_head_and_worker() -> None:
    for start in (head, worker):
        reporter = RecordingReporter()
        start(spark(answer(swap=SWAP)), reporter)
        (warning,) = (line for line in reporter.lines if line.startswith("warning: fake://host: 16.0 GiB of swap"))
        assert warning.endswith("Turn it off there: sudo swapoff -a")


def worker(host: FakeHost, reporter: RecordingReporter | None = None, **fields: Any) -> None:
    wanted = config(**{"accelerator": "nvidia", "head_ip": "192.168.177.12"} | fields)
    up_worker(host, wanted, QUICK, reporter or RecordingReporter())


def test_a_worker_with_less_than_vllms_usual_share_joins_and_says_what_the_head_may_ask_for() -> None:
    host, reporter = spark(answer(cards=[gb10(free=102 * GIB)]), watch=(seen(HEAD, WORKER),)), RecordingReporter()
    worker(host, reporter)
    assert made(host, "worker").name == "vllmray-worker"
    assert (
        "fake://host: unified memory: 102.0 of 121.7 GiB are available; the engine can take 93.7 here "
        "(--gpu-memory-utilization 0.77 with the head's `up`)"
    ) in reporter.lines


def test_with_rdma_every_container_of_a_node_is_given_the_devices_of_its_network(ports: list[dict[str, Any]]) -> None:
    host, reporter = spark(answer(rdma=ports)), RecordingReporter()
    head(host, reporter, rdma=True)
    assert [made(host, role).env["NCCL_IB_HCA"] for role in ("head", "engine")] == [HCAS, HCAS]
    assert "NCCL_IB_GID_INDEX" not in made(host, "engine").env
    assert made(host, "engine").env["NCCL_SOCKET_IFNAME"] == "=enp1s0f0np0"
    assert any(line.startswith(f"fake://host: RDMA: NCCL_IB_HCA={HCAS}: rocep1s0f0 (") for line in reporter.lines)
    other = spark(answer(rdma=ports), watch=(seen(HEAD, WORKER),))
    worker(other, rdma=True)
    assert made(other, "worker").env["NCCL_IB_HCA"] == HCAS


def test_a_user_who_names_devices_and_interface_has_them(ports: list[dict[str, Any]]) -> None:
    host, reporter = spark(answer(rdma=ports)), RecordingReporter()
    own = ("NCCL_IB_HCA=rocep1s0f1", "NCCL_SOCKET_IFNAME=enP7s7", "NCCL_IB_GID_INDEX=1")
    head(host, reporter, rdma=True, env=own)
    assert {f"{name}={made(host, 'engine').env[name]}" for name in (each.split("=")[0] for each in own)} == set(own)
    assert any("NCCL_IB_HCA=rocep1s0f1 names no ACTIVE device" in line for line in reporter.lines)


def test_a_device_that_is_not_active_is_a_warning(ports: list[dict[str, Any]]) -> None:
    down = [port | ({"state": "DOWN"} if port["device"] == "roceP2p1s0f0" else {}) for port in ports]
    host, reporter = spark(answer(rdma=down)), RecordingReporter()
    head(host, reporter, rdma=True)
    assert made(host, "engine").env["NCCL_IB_HCA"] == "=rocep1s0f0:1"
    assert any(
        line.startswith("warning: fake://host: NCCL can't use RDMA device roceP2p1s0f0") for line in reporter.lines
    )


def test_without_rdma_a_cluster_of_several_hosts_is_told_that_there_is_some(ports: list[dict[str, Any]]) -> None:
    said = "fake://host: enp1s0f0np0 has RDMA, and NCCL will use TCP: --rdma lets it use RDMA"
    for sizes, is_said in ((2, True), (1, False)):
        host, reporter = spark(answer(rdma=ports)), RecordingReporter()
        head(host, reporter, pipeline_parallel_size=sizes)
        assert (said in reporter.lines) is is_said
        assert "NCCL_IB_HCA" not in made(host, "engine").env
        assert "RDMA:" not in reporter.text()


def test_processes_have_the_devices_of_their_machine_without_asking(ports: list[dict[str, Any]]) -> None:
    host, reporter = spark(answer(rdma=ports)), RecordingReporter()
    head(host, reporter, runtime="native")
    assert made(host, "engine").env["NCCL_IB_HCA"] == HCAS
    assert any(line.startswith("fake://host: RDMA: ") for line in reporter.lines)
