"""`restart` of a host in memory: what is started anew, and what counts as working again."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.fake_host import FakeHost, Record
from tests.unit.support import RecordingReporter, config, good_host, probe_answer, ray_node, seen
from vllmray.cluster.restart import RestartOptions, restart
from vllmray.cluster.run import UpOptions
from vllmray.cluster.spec.labels import ENGINE, HEAD, WORKER
from vllmray.cluster.up import up_head, up_worker
from vllmray.errors import ClusterStateError, UserInterruptError, WaitTimeoutError, WorkloadError

WAIT, NO_WAIT = RestartOptions("docker"), RestartOptions("docker", wait=False)
HEAD_NODE, WORKER_NODE = ray_node("10.0.0.1", head=True), ray_node("10.0.0.2")
LATE = 1e6
"""Seconds of the epoch, after any start of a FakeHost's container."""


def engine_says(phase: str, since: float) -> str:
    line = json.loads(seen(HEAD_NODE, WORKER_NODE))
    return json.dumps(line | {"engine": {"phase": phase, "detail": "", "since": since}})


def head_host(*watch_lines: str) -> FakeHost:
    host = good_host(*watch_lines)
    up_head(host, config(cluster="vllmray"), UpOptions(wait=False), RecordingReporter())
    host.calls.clear()
    return host


def worker_host(*watch_lines: str) -> FakeHost:
    host = good_host(*watch_lines, probes=[probe_answer(node_ip="10.0.0.2")])
    up_worker(host, config(head_ip="10.0.0.1"), UpOptions(wait=False), RecordingReporter())
    host.calls.clear()
    return host


@pytest.mark.parametrize("role", [None, ENGINE])
def test_the_engine_is_restarted_and_waited_for_as_up_does(role: str | None) -> None:
    host = head_host(engine_says("starting", LATE), engine_says("ready", LATE))
    reporter = RecordingReporter()
    assert restart(host, config(), role, WAIT, reporter) == ("vllmray-engine",)
    assert host.calls == ["restart vllmray-engine"]
    text = reporter.text()
    assert "restarting vllmray-engine: = started" in text
    assert "2 GPUs in Ray: = 10.0.0.1: 1 GPU, 10.0.0.2: 1 GPU" in text
    assert text.endswith("engine: = answered a completion")


def test_a_head_takes_its_engine_with_it() -> None:
    host = head_host(engine_says("ready", LATE))
    assert restart(host, config(), HEAD, WAIT, RecordingReporter()) == ("vllmray-head", "vllmray-engine")
    assert host.calls == ["restart vllmray-head", "restart vllmray-engine"]


def test_the_word_of_the_engine_before_is_not_taken_for_that_of_the_new_one() -> None:
    host = head_host(engine_says("ready", 5.0), engine_says("importing", LATE))
    with pytest.raises(WaitTimeoutError, match="importing vLLM"):
        restart(host, config(engine_timeout=1), None, WAIT, RecordingReporter())


def test_settings_are_those_of_the_containers_and_the_bounds_those_of_the_command() -> None:
    host = good_host(seen(HEAD_NODE, WORKER_NODE, shortfall="2 of 4 GPUs"))
    up_head(host, config(pipeline_parallel_size=4), UpOptions(wait=False), RecordingReporter())
    reporter = RecordingReporter()
    with pytest.raises(WaitTimeoutError, match="2 of 4 GPUs") as caught:
        restart(host, config(pipeline_parallel_size=2, join_timeout=0), None, WAIT, reporter)
    assert "4 GPUs in Ray: up to 0 s" in reporter.text()
    assert "the engine starts" in str(caught.value.details)
    assert "vllmray logs engine" in str(caught.value.hint)


def test_no_wait_returns_once_it_is_started() -> None:
    host = head_host()
    assert restart(host, config(), None, NO_WAIT, RecordingReporter()) == ("vllmray-engine",)
    assert host.named("vllmray-engine").container.status == "running"


def own(line: str, node_id: str | None) -> str:
    return json.dumps(json.loads(line) | {"local_node_id": node_id})


def test_a_worker_works_again_when_the_head_lists_the_new_one_and_not_as_long_as_it_lists_the_old_one() -> None:
    before, after = ray_node("10.0.0.2"), ray_node("10.0.0.2") | {"id": "new"}
    lines = [own(seen(HEAD_NODE, before), None), own(seen(HEAD_NODE, before), "new")]
    with pytest.raises(WaitTimeoutError, match=r"10\.0\.0\.2 is still listed as the node from before the restart"):
        restart(worker_host(*lines), config(join_timeout=1), None, WAIT, RecordingReporter())
    host, reporter = worker_host(*lines, own(seen(HEAD_NODE, after), "new")), RecordingReporter()
    assert restart(host, config(), WORKER, WAIT, reporter) == ("vllmray-worker",)
    assert host.calls == ["restart vllmray-worker"]
    assert reporter.text().endswith("joining the cluster: = 10.0.0.2 with 1 GPU")


def test_what_is_not_there_is_an_error_that_names_what_is() -> None:
    host = head_host()
    with pytest.raises(ClusterStateError, match="has no worker container on this host, only: engine, head") as caught:
        restart(host, config(), WORKER, WAIT, RecordingReporter())
    assert "vllmray restart engine|head" in str(caught.value.hint)
    with pytest.raises(ClusterStateError, match="no cluster other here"):
        restart(host, config(cluster="other"), None, WAIT, RecordingReporter())
    host.stop_and_remove("vllmray-engine", timeout=0)
    with pytest.raises(ClusterStateError, match="has no engine container on this host, only: head"):
        restart(host, config(), HEAD, WAIT, RecordingReporter())
    assert not [call for call in host.calls if call.startswith("restart")]


def test_an_engine_without_a_running_head_is_refused_with_the_command_that_does_both() -> None:
    host = head_host()
    host.named("vllmray-head").becomes("exited")
    with pytest.raises(ClusterStateError, match="vllmray-head is exited") as caught:
        restart(host, config(), None, WAIT, RecordingReporter())
    assert "vllmray restart head" in str(caught.value.hint)
    assert host.calls == []


def test_an_engine_that_ends_again_is_an_error_with_its_log_and_stays() -> None:
    host = head_host()

    def watch(record: Record, argv: tuple[str, ...]) -> Iterator[str | None]:
        yield engine_says("starting", LATE)
        host.named("vllmray-engine").becomes("restarting", restarts=1, exit_code=1)
        yield None

    host.streams["python3"] = watch
    with pytest.raises(WorkloadError, match="vllmray-engine ended by itself") as caught:
        restart(host, config(), None, WAIT, RecordingReporter())
    assert caught.value.hint == "The whole log: vllmray logs engine"
    assert "vllmray-engine" in {record.container.name for record in host.records.values()}


def test_ctrl_c_leaves_it_running_and_says_so() -> None:
    host = head_host()

    def interrupted(record: Record, argv: tuple[str, ...]) -> Iterator[str | None]:
        yield engine_says("starting", LATE)
        raise KeyboardInterrupt

    host.streams["python3"] = interrupted
    with pytest.raises(UserInterruptError, match="vllmray-engine keeps running"):
        restart(host, config(), None, WAIT, RecordingReporter())
    assert host.named("vllmray-engine").container.status == "running"
