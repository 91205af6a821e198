"""GPUs that another program fills: said before anything starts, by host, GPU, memory and process."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fake_host import FakeHost, Ran, Record
from tests.unit.cluster.test_up import HEAD, READY, WORKER, names
from tests.unit.support import FakeClock, RecordingReporter, binds, card, config, good_host, probe_answer, seen
from vllmray.cluster.probe.free_memory import Room
from vllmray.cluster.run import UpOptions
from vllmray.cluster.up import up_head, up_worker
from vllmray.errors import HostError

GIB, MIB = 1024**3, 1024**2
FULL = card(free=4 * GIB)
ANOTHER = {"gpu": "GPU-0", "pid": 4242, "user": "alice", "program": "python3 train.py", "memory": 76500 * MIB}


def full_host(*cards: dict[str, Any], holders: tuple[dict[str, Any], ...] = (ANOTHER,), watch: Any = READY) -> FakeHost:
    """One whose GPUs are like that, and which tells of processes only to who sees them."""
    host = good_host(*watch, probes=[probe_answer(gpus=len(cards), cards=list(cards))])
    host.folders.add("/etc/passwd")
    usual = host.programs["python3"]

    def python(record: Record, argv: tuple[str, ...]) -> Ran:
        if argv[1].endswith("/probes/host.py") and '"users"' in argv[-1]:
            seen_from_here = holders if record.spec.pid == "host" or "/etc/passwd" in argv[-1] else ()
            return Ran((json.dumps({"cards": cards, "holders": seen_from_here}),))
        return usual(record, argv)

    host.programs["python3"] = python
    return host


def head(host: FakeHost, reporter: RecordingReporter | None = None, *, recreate: bool = False, **fields: Any) -> None:
    usual = {"accelerator": "nvidia", "pipeline_parallel_size": 1}
    up_head(host, config(**usual | fields), UpOptions(wait=False, recreate=recreate), reporter or RecordingReporter())


def test_a_full_gpu_is_named_with_its_memory_and_its_processes_before_anything_starts() -> None:
    host = full_host(FULL)
    with pytest.raises(HostError) as caught:
        head(host)
    assert caught.value.exit_code == 3
    assert caught.value.message == (
        "fake://host: too little free memory on GPU 0: 4.0 of 80.0 GiB are free, the engine needs 73.6"
    )
    assert (caught.value.details or "").splitlines() == [
        "GPU 0 (NVIDIA H100): 4.0 of 80.0 GiB free, 73.6 needed (gpu_memory_utilization 0.92)",
        "  pid 4242, user alice, python3 train.py, 76500 MiB",
    ]
    assert "End the processes that hold it" in (caught.value.hint or "")
    assert names(host) == []
    assert host.calls[-1].startswith("remove vllmray-probe-")


def test_only_the_look_at_processes_sees_those_of_the_host_and_nothing_else_is_opened_for_it() -> None:
    host = full_host(FULL)
    with pytest.raises(HostError):
        head(host)
    first, look = host.created[-2:]
    assert (first.pid, look.pid) == ("own", "host")
    assert binds(look) == [("/etc/passwd", "/vllmray/users", True)]
    assert (look.cap_drop, look.cap_add, look.restart, look.read_only) == (("ALL",), (), "no", True)


def test_a_native_host_needs_no_leave_to_see_processes() -> None:
    host = full_host(FULL)
    with pytest.raises(HostError, match="GPU 0") as caught:
        head(host, runtime="native")
    assert "pid 4242" in (caught.value.details or "")
    assert {spec.pid for spec in host.created} == {"own"}


@pytest.mark.parametrize("holders", [(), ({**ANOTHER, "gpu": "GPU-9"},)])
def test_where_nobody_tells_the_processes_that_is_said(holders: tuple[dict[str, Any], ...]) -> None:
    with pytest.raises(HostError) as caught:
        head(full_host(FULL, holders=holders))
    assert (caught.value.details or "").splitlines()[1:] == ["  the host does not report which processes hold it"]


def test_a_daemon_that_does_not_show_processes_leaves_the_rest_to_be_said() -> None:
    host = full_host(FULL)
    host.folders.clear()
    with pytest.raises(HostError, match="too little free memory on GPU 0") as caught:
        head(host)
    assert "the host does not report" in (caught.value.details or "")


def test_a_process_of_which_only_the_number_is_known_is_shown_so() -> None:
    with pytest.raises(HostError) as caught:
        head(full_host(FULL, holders=({**ANOTHER, "user": "", "program": "", "memory": None},)))
    expected = "  pid 4242, user not known, program not known, memory not known"
    assert (caught.value.details or "").splitlines()[1] == expected


def test_the_processes_with_the_most_memory_come_first() -> None:
    small = {**ANOTHER, "pid": 1, "memory": 10 * MIB}
    with pytest.raises(HostError) as caught:
        head(full_host(FULL, holders=(small, ANOTHER)))
    assert [line.split(",")[0] for line in (caught.value.details or "").splitlines()[1:]] == ["  pid 4242", "  pid 1"]


@pytest.mark.parametrize("more", [0, 1])
def test_exactly_what_vllm_asks_for_is_enough(more: int) -> None:
    host = full_host(card(free=int(80 * GIB * 0.92) + more))
    if more:
        head(host)
    else:
        with pytest.raises(HostError):
            head(host)


def test_an_engine_that_takes_less_starts_beside_another_program() -> None:
    args = ("--gpu-memory-utilization", "0.4")
    half = card(free=40 * GIB)
    head(full_host(half), vllm_args=args)
    with pytest.raises(HostError, match="the engine needs 73") as caught:
        head(full_host(half))
    assert "(-- --gpu-memory-utilization 0.5)" in (caught.value.hint or "")
    with pytest.raises(HostError, match="the engine needs 73"):  # vLLM asks for as much with a cache of a stated size
        head(full_host(half), vllm_args=("--kv-cache-memory-bytes", "1G"))


def test_weights_that_another_process_holds_for_the_engine_are_vllms_own_affair() -> None:
    host = full_host(FULL)
    head(host, vllm_args=("--load-format", "ipc_cache"))
    assert {"vllmray-head", "vllmray-engine"} <= {each.name for each in host.containers({})}


def test_gpus_that_ray_would_not_give_to_the_engine_may_be_full() -> None:
    full = {**FULL, "id": "1", "uuid": "GPU-1"}
    head(full_host(card(), full), tensor_parallel_size=1)
    with pytest.raises(HostError, match="memory on GPU 1: ") as caught:
        head(full_host(card(), full), tensor_parallel_size=2)
    assert "--gpus device=0)" in (caught.value.hint or "")


def test_the_gpus_that_are_free_are_offered_by_the_names_they_were_given() -> None:
    with pytest.raises(HostError, match="memory on GPU 4: ") as caught:
        head(full_host(FULL, card(id="1"), card(id="2")), gpus="4,5,6")
    assert "take other GPUs (--gpus device=5,6)" in (caught.value.hint or "")


def test_several_full_gpus_are_one_error() -> None:
    with pytest.raises(HostError, match="on GPU 0, and 1 more: ") as caught:
        head(full_host(FULL, {**FULL, "id": "1", "uuid": "GPU-1"}), tensor_parallel_size=2)
    assert [line.split(" (")[0] for line in (caught.value.details or "").splitlines() if "GPU" in line] == [
        "GPU 0",
        "GPU 1",
    ]


def test_unified_memory_is_named_and_the_hint_leaves_the_host_its_reserve() -> None:
    spark = card(120 * GIB, free=60 * GIB, unified=True, name="NVIDIA GB10")
    with pytest.raises(HostError, match="GiB are free, the engine needs 96") as caught:
        head(full_host(spark), vllm_args=("--gpu-memory-utilization=0.8",))
    assert "GPU 0 (NVIDIA GB10, memory shared with the host): 60.0 of 120.0 GiB free" in (caught.value.details or "")
    assert "(-- --gpu-memory-utilization 0.43)" in (caught.value.hint or "")


def test_a_worker_looks_at_its_own_gpus_before_it_waits_for_the_head() -> None:
    host = full_host(card(), {**FULL, "id": "1", "uuid": "GPU-1"})
    reporter = RecordingReporter()
    with pytest.raises(HostError, match="fake://host: too little free memory on GPU 1") as caught:
        up_worker(host, config(accelerator="nvidia", head_ip="10.0.0.9"), UpOptions(), reporter)
    assert names(host) == []
    assert "pid" not in (caught.value.details or "")  # those are of the other GPU


def test_a_workers_command_line_says_what_the_engine_takes() -> None:
    reporter = RecordingReporter()
    host = full_host(card(free=40 * GIB))
    head(host, reporter, pipeline_parallel_size=2, vllm_args=("--gpu-memory-utilization", "0.4"))
    assert "-- --gpu-memory-utilization=0.4\n" in reporter.text()
    worker = full_host(card(free=40 * GIB), watch=(seen(HEAD, WORKER),))
    wanted = config(accelerator="nvidia", head_ip="10.0.0.9", vllm_args=("--gpu-memory-utilization=0.4",))
    up_worker(worker, wanted, UpOptions(wait=False), RecordingReporter())
    assert names(worker) == ["vllmray-worker"]


def test_what_the_running_engine_of_this_cluster_holds_is_no_reason_to_refuse() -> None:
    roomy: list[bool] = []
    host = full_host(card())
    usual = host.programs["python3"]

    def python(record: Record, argv: tuple[str, ...]) -> Ran:
        """The engine fills the GPU as long as it runs."""
        runs = any(each.container.name == "vllmray-engine" for each in host.records.values())
        if argv[1].endswith("/probes/host.py") and "accelerator" in argv[-1]:
            roomy.append(not runs)
            return Ran((probe_answer(gpus=1, cards=[FULL if runs else card()]),))
        return usual(record, argv)

    host.programs["python3"] = python
    head(host)
    head(host)
    assert roomy == [True, False]
    head(host, recreate=True, max_model_len=8192)
    assert roomy[2:] == [False, True]  # the check of the host, and the one after the engine was removed
    assert names(host) == ["vllmray-engine", "vllmray-head"]


def test_memory_that_comes_back_a_moment_after_the_engine_ended_is_waited_for() -> None:
    looks = [FULL, FULL, card()]
    host = full_host(FULL)
    host.programs["python3"] = lambda record, argv: Ran((json.dumps({"cards": [looks.pop(0)]}),))
    reporter, clock = RecordingReporter(), FakeClock()
    Room(host, config(accelerator="nvidia"), 1).check_again((), reporter, clock)
    assert looks == []
    assert "free GPU memory: 4.0 GiB on GPU 0" in reporter.text()


def test_memory_that_does_not_come_back_is_the_same_error() -> None:
    with pytest.raises(HostError, match="too little free memory on GPU 0"):
        Room(full_host(FULL), config(accelerator="nvidia"), 1).check_again((), RecordingReporter(), FakeClock())


def test_fewer_gpus_than_were_asked_for_is_an_error() -> None:
    with pytest.raises(HostError, match="--gpus 2 asks for 2 nvidia GPUs, and image:1 sees 1"):
        head(full_host(card()), gpus="2")
