"""`up` of several hosts in memory: the phases' order, what one host's failure does to the others, 64 hosts at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from pydantic import SecretStr

from tests.fake_host import FakeHost
from tests.unit.support import RecordingReporter, good_host, probe_answer, ray_node, seen
from vllmray.cluster.all_hosts import STAMP, Line, down_all, history_all, logs_all, look_all, restart_all
from vllmray.cluster.lock import NOBODY
from vllmray.cluster.members import Interruption, Member, failure_of, on_each
from vllmray.cluster.merge import Live, by_time
from vllmray.cluster.phases.base import ClusterRun
from vllmray.cluster.probe.facts import SCRIPT, Address, HostFacts, facts_of, shared_address
from vllmray.cluster.run import UpOptions
from vllmray.cluster.spec.contents import Secrets
from vllmray.cluster.survey import draft_of, survey
from vllmray.cluster.up_all import PHASES, up_all
from vllmray.config.models import ClusterConfig
from vllmray.config.render import render
from vllmray.errors import ClusterStateError, HostError, UserInterruptError, VllmrayError, WaitTimeoutError
from vllmray.reporter import SilentBoard

TOKEN = SecretStr("the-token-of-ray-itself")


class RecordingBoard(RecordingReporter):
    """Which host did which phase, in order of their beginnings, and how each ended."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: dict[tuple[str, str], str] = {}
        self.begun: list[tuple[str, str]] = []

    def cell(self, host: str, phase: str) -> Any:
        self.begun.append((phase, host))
        board = self

        class Cell(RecordingReporter):
            def __enter__(self) -> Cell:
                return self

            def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
                board.ends[phase, host] = "done" if kind is None else kind.__name__

        return Cell()

    @property
    def phases(self) -> list[str]:
        return list(dict.fromkeys(phase for phase, _ in self.begun))


class Keeper:
    """Secrets that are always the same."""

    def knows(self, config: ClusterConfig, name: str) -> bool:
        return True

    def with_secrets(self, config: ClusterConfig, role: str) -> ClusterConfig:
        return config.model_copy(update={"ray_token": TOKEN, "api_key": SecretStr("sk-the-key")})

    def of(self, config: ClusterConfig, role: str) -> Secrets:
        return Secrets(config.ray_token) if role == "worker" else Secrets.of(config)

    def keep(self, secrets: Secrets) -> None:
        pass


def facts(number: int, *more: str, gpus: int = 0) -> str:
    """What the script prints on a host."""
    lines = [
        *("== name", f"host{number}", "== addresses"),
        f"2: eth0    inet 10.0.0.{number}/24 brd 10.0.0.255 scope global eth0\\       valid_lft forever",
        *more,
        *("== default", "default via 10.0.0.254 dev eth0", "== speeds", "/sys/class/net/eth0/speed 100000"),
        *("== memory", "1048576 kB", "== gpus"),
        *["NVIDIA H100 80GB HBM3, 81559, 575.57.08"] * gpus,
        *("== python", "/usr/bin/python3"),
    ]
    return "\n".join(lines) + "\n"


def hosts(count: int, *, phase: str = "ready") -> dict[str, FakeHost]:
    """Good hosts gpu1 …, the first of which sees all in Ray."""
    nodes = [ray_node(f"10.0.0.{number}", head=number == 1) for number in range(1, count + 1)]
    found = {}
    for number in range(1, count + 1):
        host = good_host(seen(*nodes, phase=phase), probes=[probe_answer(node_ip=f"10.0.0.{number}")])
        host.address = f"fake://gpu{number}"
        host.scripts[SCRIPT] = facts(number)
        found[f"gpu{number}"] = host
    return found


def _same(host: FakeHost) -> FakeHost:
    return host


def members(found: dict[str, FakeHost], **fields: Any) -> list[Member]:
    usual = {"accelerator": "cpu", "tensor_parallel_size": 1, "pipeline_parallel_size": len(found), "image": "image:1"}
    config = ClusterConfig(**(usual | fields))
    return [
        Member(name, host.address, "head" if name == "gpu1" else "worker", config, connect=partial(_same, host))
        for name, host in found.items()
    ]


def run_of(
    found: dict[str, FakeHost], board: RecordingBoard, *, options: UpOptions | None = None, **fields: Any
) -> Any:
    return ClusterRun(members(found, **fields), board, options or UpOptions(), Keeper())


def started(found: dict[str, FakeHost]) -> dict[str, list[str]]:
    return {name: sorted(each.container.name for each in host.records.values()) for name, host in found.items()}


NOTHING: list[str] = []


def test_every_phase_runs_in_order_and_all_hosts_are_started() -> None:
    found, board = hosts(3), RecordingBoard()
    outcome = up_all(run_of(found, board))
    assert outcome.ready
    assert (outcome.config.head_ip, outcome.config.pipeline_parallel_size) == ("10.0.0.1", 3)
    silent = ("model", "prune")  # nothing to copy, and nobody was taken out
    assert board.phases == [phase.title for phase in PHASES if phase.title not in silent]
    assert set(board.ends.values()) == {"done"}
    assert started(found) == {
        "gpu1": ["vllmray-engine", "vllmray-head"],
        "gpu2": ["vllmray-worker"],
        "gpu3": ["vllmray-worker"],
    }


def test_the_same_again_starts_nothing() -> None:
    found = hosts(2)
    up_all(run_of(found, RecordingBoard()))
    before = {name: [record.container.id for record in host.records.values()] for name, host in found.items()}
    up_all(run_of(found, RecordingBoard()))
    assert before == {name: [record.container.id for record in host.records.values()] for name, host in found.items()}


def test_a_host_that_does_not_answer_is_named_the_others_finish_the_phase_and_nothing_is_started() -> None:
    found, board = hosts(3), RecordingBoard()
    run = run_of(found, board)

    def fails() -> FakeHost:
        raise HostError("cannot reach Docker at fake://gpu2", hint="Look.")

    run.members[1].connect = fails
    with pytest.raises(HostError, match="gpu2"):
        up_all(run)
    assert board.ends == {
        ("connect", "gpu1"): "done",
        ("connect", "gpu2"): "HostError",
        ("connect", "gpu3"): "done",
    }
    assert all(names == NOTHING for names in started(found).values())


@pytest.mark.parametrize("retain", [False, True])
def test_a_worker_that_fails_takes_back_what_was_started_unless_it_is_to_stay(retain: bool) -> None:
    found, board = hosts(3), RecordingBoard()
    answer = probe_answer(node_ip="10.0.0.3", taken={"node_manager": 6380})
    found["gpu3"] = good_host(probes=[answer])
    found["gpu3"].scripts[SCRIPT] = facts(3)
    with pytest.raises(HostError, match="6380"):
        up_all(run_of(found, board, options=UpOptions(retain=retain)))
    assert board.ends["worker", "gpu2"] == "done"
    assert started(found)["gpu2"] == (["vllmray-worker"] if retain else [])
    assert started(found)["gpu1"] == (["vllmray-engine", "vllmray-head"] if retain else [])


def test_several_failures_are_one_error_with_every_reason() -> None:
    failures = {
        "gpu1": HostError("gpu1: a", details="more\nwords", hint="Do this."),
        "gpu2": WaitTimeoutError("gpu2: b", hint="Do this."),
    }
    error = failure_of("worker", failures, 4)
    assert isinstance(error, HostError)
    assert str(error) == "worker: failed on 2 of 4 hosts: gpu1, gpu2"
    assert error.details == "gpu1: gpu1: a\n    more\n    words\ngpu2: gpu2: b"
    assert error.hint == "Do this."
    assert failure_of("worker", {"gpu1": failures["gpu1"]}, 4) is failures["gpu1"]
    strange = ValueError("a fault of ours")
    assert failure_of("worker", {**failures, "gpu3": strange}, 4) is strange


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda found: setattr(found["gpu2"], "architecture", "arm64"), "gpu1 is amd64, gpu2 is arm64"),
        (lambda found: setattr(found["gpu2"], "rootless", True), "gpu2: its Docker daemon is rootless"),
        (lambda found: found["gpu2"].scripts.update({SCRIPT: facts(2).replace("10.0.0", "192.168.7")}), "no network"),
    ],
)
def test_hosts_that_can_not_be_one_cluster_are_refused_before_anything(
    change: Callable[[dict[str, FakeHost]], object], words: str
) -> None:
    found, board = hosts(2), RecordingBoard()
    change(found)
    with pytest.raises(VllmrayError) as caught:
        up_all(run_of(found, board))
    assert words in str(caught.value.details)
    assert board.phases == ["connect", "facts", "hosts"]
    assert all(names == NOTHING for names in started(found).values())


def test_too_few_gpus_are_counted_before_an_image_is_pulled() -> None:
    found, board = hosts(2), RecordingBoard()
    for number, host in enumerate(found.values(), start=1):
        host.scripts[SCRIPT] = facts(number, gpus=2)
    with pytest.raises(HostError) as caught:
        up_all(run_of(found, board, accelerator="nvidia", tensor_parallel_size=2, pipeline_parallel_size=4))
    assert "4 GPUs (gpu1 2, gpu2 2), and the engine takes 8" in str(caught.value.details)


def test_only_workers_leave_the_head_as_it_is_and_join_it() -> None:
    found = hosts(3)
    up_all(run_of({name: found[name] for name in ("gpu1", "gpu2")}, RecordingBoard(), pipeline_parallel_size=2))
    before = started(found)["gpu1"], list(found["gpu1"].records)
    board = RecordingBoard()
    run = run_of(found, board, pipeline_parallel_size=4)  # which would replace the engine
    run.members = [run.members[0], run.members[2]]
    run.keep_head = True
    up_all(run)
    assert (started(found)["gpu1"], list(found["gpu1"].records)) == before
    assert started(found)["gpu3"] == ["vllmray-worker"]
    assert "engine" not in board.phases

    empty = hosts(2)
    run = run_of(empty, RecordingBoard())
    run.keep_head = True
    with pytest.raises(ClusterStateError, match="no head runs here"):
        up_all(run)


def test_the_heads_interface_chooses_the_network() -> None:
    found, more = hosts(2), "4: eth1    inet 192.168.1.{}/24 scope global eth1"
    for number, host in enumerate(found.values(), start=1):
        host.scripts[SCRIPT] = facts(number, more.format(number))
    run = run_of(found, RecordingBoard(), network_interface="eth1")
    for phase in PHASES[:3]:
        phase.run(run)
    assert {member.config.head_ip for member in run.members} == {"192.168.1.1"}


def test_a_member_that_is_not_in_the_file_any_more_is_removed_only_when_asked() -> None:
    found, board = hosts(3), RecordingBoard()
    up_all(run_of(found, board))
    for prune in (False, True):
        run = run_of({name: found[name] for name in ("gpu1", "gpu2")}, board, pipeline_parallel_size=2)
        run.former, run.prune = members(found)[2:], prune
        up_all(run)
        assert started(found)["gpu3"] == ([] if prune else ["vllmray-worker"])
    assert "no longer in the cluster file, and not removed: gpu3" in board.text()


def test_status_events_logs_restart_and_down_are_of_all_hosts() -> None:
    found = hosts(2)
    up_all(run_of(found, RecordingBoard()))
    everyone = members(found)
    states = look_all(everyone, "vllmray")
    assert [(state.name, state.state) for state in states] == [("gpu1", "ready"), ("gpu2", "ready")]
    lost: list[str] = []
    lines = list(logs_all(everyone, "vllmray", None, follow=False, tail=1, lost=lambda name, _: lost.append(name)))
    assert {(line.host, line.role) for line in lines} == {("gpu1", "head"), ("gpu1", "engine"), ("gpu2", "worker")}
    assert all(line.text in ("Ray starts", "the engine starts") for line in lines)
    assert restart_all(everyone, "worker", SilentBoard(), wait=False, holder=NOBODY) == {"gpu2": ("vllmray-worker",)}
    removed = down_all(everyone, "vllmray", SilentBoard(), holder=NOBODY)
    assert {name: each.containers for name, each in removed.items()} == {
        "gpu1": ("vllmray-engine", "vllmray-head"),
        "gpu2": ("vllmray-worker",),
    }
    assert [state.state for state in look_all(everyone, "vllmray")] == ["no node", "no node"]
    rows = history_all(everyone, "vllmray", since=None, lost=lambda name, _: lost.append(name))
    assert [row.at for row in rows] == sorted(row.at for row in rows)
    assert {row.where for row in rows} == {"gpu1 vllmray-head", "gpu1 vllmray-engine", "gpu2 vllmray-worker"}
    with pytest.raises(ClusterStateError, match="no cluster other on gpu1, gpu2"):
        history_all(everyone, "other", since=None, lost=lambda name, _: lost.append(name))
    assert lost == []


def test_a_host_that_can_not_be_reached_is_told_as_such_and_the_rest_is_told() -> None:
    found = hosts(2)
    up_all(run_of(found, RecordingBoard()))
    everyone = members(found)

    def fails() -> FakeHost:
        raise HostError("cannot reach Docker at ssh://gpu2")

    everyone[1].connect = fails
    first, second = look_all(everyone, "vllmray")
    assert (first.state, second.state, second.view) == ("ready", "cannot reach Docker at ssh://gpu2", None)


def test_ctrl_c_reaches_every_host_s_wait_and_says_what_runs() -> None:
    found = hosts(2, phase="starting")
    run = run_of(found, RecordingBoard())
    threading.Timer(1.0, run.stop.event.set).start()
    with pytest.raises(UserInterruptError) as caught:
        up_all(run)
    assert "gpu1: vllmray-head, vllmray-engine" in str(caught.value.details)
    assert "gpu2: vllmray-worker" in str(caught.value.details)
    assert started(found)["gpu1"] == ["vllmray-engine", "vllmray-head"]


def test_64_hosts_are_worked_on_at_once() -> None:
    found = {f"h{number}": FakeHost() for number in range(64)}
    config = ClusterConfig()
    everyone = [Member(name, "", "worker", config, connect=partial(_same, host)) for name, host in found.items()]
    began = time.monotonic()
    results = on_each(everyone, "x", lambda member, _: time.sleep(0.5), SilentBoard(), Interruption())
    assert len(results.values) == 64
    assert time.monotonic() - began < 2


def test_one_thread_does_all_that_is_done_with_a_host() -> None:
    """The ssh of its connection ends with the thread that started it."""
    member = members(hosts(1))[0]
    seen_: list[int] = []
    for phase in ("a", "b"):
        on_each([member], phase, lambda *_: seen_.append(threading.get_ident()), SilentBoard(), Interruption())
    assert len(set(seen_)) == 1
    assert seen_[0] != threading.get_ident()


def test_the_shared_network_is_found_and_docker0_is_none() -> None:
    bridge = "3: docker0    inet 172.17.0.1/16 brd 172.17.255.255 scope global docker0"
    slow = "4: eth1    inet 192.168.1.{}/24 scope global eth1"
    found = {f"gpu{number}": facts_of(facts(number, bridge, slow.format(number))) for number in (1, 2)}
    assert shared_address(found, "gpu2") == Address("eth0", "10.0.0.2", 24, 100000)
    other = {**found, "gpu3": HostFacts(addresses=(Address("eth0", "172.17.0.1", 16),))}
    assert shared_address(other, "gpu1") is None


def test_facts_are_read_and_what_is_missing_is_left_out() -> None:
    found = facts_of(facts(1, gpus=2))
    assert (found.name, found.default, found.memory, found.driver) == ("host1", "eth0", 2**30, "575.57.08")
    assert [(gpu.name, gpu.memory) for gpu in found.gpus] == [("NVIDIA H100 80GB HBM3", 81559 * 2**20)] * 2
    assert facts_of("") == HostFacts()
    spark = facts_of("== gpus\nNVIDIA GB10, [N/A], 580.95.05\n")
    assert [(gpu.name, gpu.memory) for gpu in spark.gpus] == [("NVIDIA GB10", 0)]


def test_a_survey_drafts_a_file_with_what_was_found() -> None:
    found = hosts(2)
    for number, host in enumerate(found.values(), start=1):
        host.scripts[SCRIPT] = facts(number, gpus=2)
    everyone = members(found)
    survey(everyone, SilentBoard())
    text = render(draft_of(everyone, {"gpu1": "gpu1", "gpu2": "me@gpu2"}))
    for words in (
        "# 2 x NVIDIA H100 80GB HBM3 (80 GiB), driver 575.57.08\n",
        "# 10.0.0.2 on eth0 (100 Gbit/s)\n",
        'layout = "auto"',
        'address = "me@gpu2"\nrole = "worker"\nnode_ip = "10.0.0.2"\n',
    ):
        assert words in text
    assert "accelerator" not in text


def test_layout_auto_is_chosen_from_the_gpus_of_all_hosts() -> None:
    from vllmray.cluster.phases.plan import cluster_gpus

    found = hosts(2)
    for number, host in enumerate(found.values(), start=1):
        host.scripts[SCRIPT] = facts(number, gpus=number)
    everyone = members(found, accelerator="nvidia")
    survey(everyone, SilentBoard())
    size = 81559 * 2**20
    assert cluster_gpus(everyone) == ((size,), (size, size))
    everyone[1].config = everyone[1].config.model_copy(update={"gpus": ClusterConfig(gpus="1").gpus})
    assert cluster_gpus(everyone) == ((size,), (size,))
    everyone[0].facts = replace(everyone[0].facts or HostFacts(), gpus=())
    assert cluster_gpus(everyone) == ()


def test_streams_are_merged_by_time_and_a_lost_one_is_named() -> None:
    def line(at: float, host: str) -> Line:
        return Line(at, host, "head", "")

    merged = by_time([[line(1, "a"), line(3, "a")], [line(2, "b")]], lambda each: each.at)
    assert [each.at for each in merged] == [1, 2, 3]
    lost: list[str] = []

    def breaks() -> Iterable[Line]:
        yield line(5, "b")
        raise HostError("gone")

    streams = {"a": iter([line(4, "a"), line(6, "a")]), "b": breaks()}
    live = Live(lambda name, error: lost.append(f"{name}: {error}"))
    assert [each.at for each in live.merged(streams, lambda each: each.at)] == [4, 5, 6]
    assert lost == ["b: gone"]


@pytest.mark.parametrize(
    ("stamp", "is_one"),
    [
        ("2026-12-01T00:30:13.123456789Z", True),
        ("2026-12-01T00:30:13+00:00", True),
        ("2026-12-01", False),
        ("INFO", False),
    ],
)
def test_a_daemon_s_time_before_a_line_is_known_as_one(stamp: str, is_one: bool) -> None:
    assert bool(STAMP.fullmatch(stamp)) is is_one
