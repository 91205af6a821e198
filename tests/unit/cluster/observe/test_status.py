"""What `status`, `logs` and `down` make of a host in memory."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.fake_host import FakeHost, Ran, Record
from tests.unit.support import FakeClock, RecordingReporter, config, good_host, probe_answer, ray_node, seen
from vllmray.cluster.down import down
from vllmray.cluster.logs import logs
from vllmray.cluster.observe import status as views
from vllmray.cluster.observe.watch import Watch
from vllmray.cluster.run import UpOptions
from vllmray.cluster.spec.containers import ENGINE_STATE
from vllmray.cluster.up import up_head, up_worker
from vllmray.errors import ClusterStateError, HostError
from vllmray.hosts.base import ContainerSpec
from vllmray.payload.journal import Entry, line_of
from vllmray.ray.argv import RAY

HEAD = ray_node("10.0.0.1", head=True)
WORKER = ray_node("10.0.0.2")
NO_WAIT = UpOptions(wait=False)


def with_head(*watch_lines: str, state: str | None = None, now: float = 100.0) -> FakeHost:
    """A host with head and engine, whose state file reads so at that many seconds after its boot."""
    host = good_host(*watch_lines)
    up_head(host, config(), NO_WAIT, RecordingReporter())

    def cat(record: Record, argv: tuple[str, ...]) -> Ran:
        assert argv == ("cat", "/proc/uptime", ENGINE_STATE)
        return Ran((f"{now} {8 * now}", *([state] if state else [])), 0 if state else 1)

    host.programs["cat"] = cat
    return host


def state(phase: str, *, heartbeat: float = 99.0, shortfall: str = "", detail: str = "") -> str:
    ray = json.loads(seen(HEAD, WORKER, shortfall=shortfall))
    return json.dumps({"phase": phase, "detail": detail, "since": 50.0, "heartbeat": heartbeat, "ray": ray})


def test_a_serving_cluster_is_ready_and_no_interpreter_was_started_to_see_it() -> None:
    host = with_head(state=state("ready"))
    host.streams.clear()
    view = views.look(host, "vllmray")
    assert view.ready
    assert view.problem is None
    assert view.endpoint == "http://10.0.0.1:8000/v1"
    assert view.gpus_wanted == 2
    assert view.engine is not None
    assert (view.engine.phase, view.engine.since) == ("ready", 50.0)


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (state("starting", detail="loading the model"), "the engine is not ready: loading the model"),
        (state("importing"), "the engine is not ready: importing"),
        (state("waiting", shortfall="1 of 2 GPUs"), "waiting for GPUs: 1 of 2 GPUs"),
        (state("ready", shortfall="1 of 2 GPUs"), "waiting for GPUs: 1 of 2 GPUs"),
    ],
)
def test_what_is_between_the_cluster_and_serving(said: str, problem: str) -> None:
    view = views.look(with_head(state=said), "vllmray")
    assert (view.ready, view.problem) == (False, problem)


@pytest.mark.parametrize("said", [state("ready", heartbeat=80.0), "{ half a line", None])
def test_a_word_of_the_engine_that_is_old_or_broken_is_not_taken(said: str | None) -> None:
    view = views.look(with_head(seen(HEAD, shortfall="1 of 2 GPUs", phase="waiting"), state=said), "vllmray")
    assert view.problem == "waiting for GPUs: 1 of 2 GPUs"


def test_a_ray_that_does_not_answer_is_said_so() -> None:
    view = views.look(with_head(json.dumps({"error": "ConnectionError: no GCS\nmore"})), "vllmray")
    assert view.problem == "Ray does not answer: ConnectionError: no GCS"


def test_a_container_that_ended_is_the_problem() -> None:
    host = with_head(state=state("ready"))
    host.named("vllmray-engine").becomes("restarting", exit_code=1)
    assert views.look(host, "vllmray").problem == "vllmray-engine is restarting (exit code 1)"
    host.named("vllmray-head").becomes("exited", exit_code=137)
    view = views.look(host, "vllmray")
    assert view.problem == "vllmray-head is exited (exit code 137)"
    assert view.ray is None


def test_a_missing_engine_is_the_problem() -> None:
    host = with_head(seen(HEAD, WORKER))
    host.stop_and_remove("vllmray-engine", timeout=0)
    assert views.look(host, "vllmray").problem == "the engine's container is missing"


def test_a_host_without_the_cluster_says_so() -> None:
    with pytest.raises(ClusterStateError, match="no cluster vllmray here"):
        views.look(FakeHost(), "vllmray")


def test_containers_without_settings_in_their_label_are_refused_and_named() -> None:
    host = with_head(state=state("ready"))
    record = host.named("vllmray-head")
    record.container = replace(record.container, labels={**record.container.labels, "io.vllmray.config": "{"})
    with pytest.raises(ClusterStateError, match="vllmray-head has no settings in its label") as caught:
        views.look(host, "vllmray")
    assert "`vllmray down` removes it" in str(caught.value.hint)
    assert down(host, "vllmray", RecordingReporter())


def test_a_warning_before_the_answer_is_passed_over_and_the_time_is_that_of_the_clock() -> None:
    noise = ("/x/site.py:1: DeprecationWarning: something", "  import pkg", "2026-11-27 WARNING services.py: …")
    host = good_host(probes=[probe_answer(node_ip="10.0.0.2")])
    host.streams["python3"] = lambda record, argv: iter([*noise, seen(HEAD, WORKER)])
    up_worker(host, config(head_ip="10.0.0.1"), NO_WAIT, RecordingReporter())
    assert views.look(host, "vllmray").ready


def test_who_never_answers_but_goes_on_talking_is_left_when_the_time_is_over() -> None:
    host = good_host(seen(HEAD))
    up_head(host, config(), NO_WAIT, RecordingReporter())
    clock = FakeClock()

    def talking(record: Record, argv: tuple[str, ...]) -> Iterator[str | None]:
        while True:
            clock.sleep(1)
            yield "a warning"

    host.streams["python3"] = talking
    with Watch(host, "vllmray-head", ("python3",), clock) as watch:
        assert watch.latest(15) is None
    assert 15 <= clock.now <= 17


def test_a_workers_host_is_ready_when_the_head_lists_it() -> None:
    host = good_host(seen(HEAD, WORKER), probes=[probe_answer(node_ip="10.0.0.2")])
    up_worker(host, config(head_ip="10.0.0.1"), NO_WAIT, RecordingReporter())
    view = views.look(host, "vllmray")
    assert (view.role, view.ready, view.endpoint, view.gpus_wanted) == ("worker", True, None, None)


def test_a_worker_that_the_head_does_not_list_is_not_ready() -> None:
    host = good_host(seen(HEAD), probes=[probe_answer(node_ip="10.0.0.2")])
    up_worker(host, config(head_ip="10.0.0.1"), NO_WAIT, RecordingReporter())
    assert views.look(host, "vllmray").problem == "the head does not list 10.0.0.2"


def test_following_tells_changes_only() -> None:
    host = with_head(
        seen(HEAD, shortfall="1 of 2 GPUs", phase="waiting"),
        seen(HEAD, shortfall="1 of 2 GPUs", phase="waiting"),
        seen(HEAD, WORKER, phase="ready"),
    )
    clock = FakeClock()
    problems = [view.problem for view in itertools.islice(views.follow(host, "vllmray", clock), 2)]
    assert problems == ["waiting for GPUs: 1 of 2 GPUs", None]
    assert clock.now > 0


SMI = ("0, NVIDIA H100 80GB HBM3, 71234, 81559", "1, NVIDIA H100 80GB HBM3, 4, 81559")


def with_gpus(*printed: str, code: int = 0) -> FakeHost:
    """The head of a cluster whose nodes have NVIDIA GPUs."""
    host = good_host(seen(HEAD, WORKER), probes=[probe_answer(gpus=1)])
    up_head(host, config(accelerator="nvidia"), NO_WAIT, RecordingReporter())
    host.programs["nvidia-smi"] = lambda record, argv: Ran(printed, code)
    return host


def test_the_memory_of_this_hosts_gpus_is_told_in_bytes() -> None:
    first, second = views.look(with_gpus(*SMI), "vllmray").gpus
    assert (first.index, first.name) == (0, "NVIDIA H100 80GB HBM3")
    assert (first.used, first.total) == (71234 * 1024**2, 81559 * 1024**2)
    assert (second.index, second.used) == (1, 4 * 1024**2)


@pytest.mark.parametrize(
    ("printed", "code"),
    [(("NVIDIA-SMI has failed because it couldn't communicate",), 9), ((), 0), (("0, A, [N/A], 5",), 0)],
)
def test_memory_that_can_not_be_told_is_left_out(printed: tuple[str, ...], code: int) -> None:
    assert views.look(with_gpus(*printed, code=code), "vllmray").gpus == ()


def test_without_nvidia_smi_or_without_such_gpus_none_is_told() -> None:
    host = with_gpus()
    del host.programs["nvidia-smi"]
    assert views.look(host, "vllmray").gpus == ()
    assert views.look(with_head(state=state("ready")), "vllmray").gpus == ()


def test_following_looks_at_the_gpus_again_after_a_while_only() -> None:
    host, clock = with_gpus(), FakeClock()
    asked = itertools.count()
    host.programs["nvidia-smi"] = lambda record, argv: Ran((f"0, A, {next(asked)}, 9",))
    used = [view.gpus[0].used // 1024**2 for view in itertools.islice(views.follow(host, "vllmray", clock), 4)]
    assert used == [0, 1, 2, 3]
    assert clock.now > 3 * views.GPUS_S


def test_raw_is_rays_own_text() -> None:
    host = with_head()
    asked: list[tuple[str, ...]] = []

    def status(record: Record, argv: tuple[str, ...]) -> Iterator[str | None]:
        asked.append(argv)
        yield "======== Autoscaler status"
        yield None
        yield "Active:"

    host.streams["python3"] = status
    assert list(views.raw(host, "vllmray")) == ["======== Autoscaler status", "Active:"]
    assert asked == [(*RAY, "status", "-v", "--address=10.0.0.1:6379")]


def test_raw_that_fails_is_an_error_after_rays_own_words() -> None:
    host = with_head()
    del host.streams["python3"]
    host.programs["python3"] = lambda record, argv: Ran(("AuthenticationError",), 1)
    lines = views.raw(host, "vllmray", FakeClock())
    assert next(lines) == "AuthenticationError"
    with pytest.raises(HostError, match=r"`ray status` in vllmray-head failed \(exit code 1\)"):
        next(lines)


def test_logs_are_the_engines_unless_another_is_named() -> None:
    host = with_head()
    host.named("vllmray-engine").log[:] = ["one", "two"]
    host.named("vllmray-head").log[:] = ["Ray"]
    assert list(logs(host, "vllmray", None, follow=False, tail=1)) == ["two"]
    assert list(logs(host, "vllmray", "head", follow=False, tail=None)) == ["Ray"]
    with pytest.raises(ClusterStateError, match="has no worker container on this host, only: engine, head"):
        logs(host, "vllmray", "worker", follow=False, tail=None)


def test_down_removes_engine_worker_head_and_volumes() -> None:
    host = with_head()
    worker = ContainerSpec(
        name="vllmray-worker",
        image="image:1",
        argv=("sleep", "1"),
        labels={**host.named("vllmray-head").spec.labels, "io.vllmray.role": "worker"},
    )
    host.create_and_start(worker)
    host.create_and_start(replace(worker, name="another", labels={"io.vllmray.cluster": "other"}))
    host.calls.clear()
    removed = down(host, "vllmray", RecordingReporter())
    assert removed.containers == ("vllmray-engine", "vllmray-worker", "vllmray-head")
    assert removed.shared == ("vllmray-head-ray", "vllmray-head-shm-16384m")
    assert [record.container.name for record in host.records.values()] == ["another"]
    assert down(host, "vllmray", RecordingReporter()).containers == ()
    assert down(host, None, RecordingReporter()).containers == ("another",)


def said(phase: str, *, deaths: int = 0, missing_since: float | None = None, shortfall: str = "") -> str:
    values = json.loads(state(phase, shortfall=shortfall, detail="the detail"))
    return json.dumps({**values, "deaths": deaths, "missing_since": missing_since})


@pytest.mark.parametrize(
    ("state_file", "since"),
    [
        (said("ready"), None),
        (said("starting"), 50.0),
        (said("waiting", shortfall="1 of 2 GPUs"), 50.0),
        (said("waiting", shortfall="1 of 2 GPUs", missing_since=40.0), 40.0),
        (said("ready", shortfall="1 of 2 GPUs", missing_since=45.0), 45.0),
    ],
)
def test_a_view_says_since_when_it_is_so(state_file: str, since: float | None) -> None:
    view = views.look(with_head(state=state_file), "vllmray")
    assert view.since == since


def test_a_container_that_ended_is_missing_since_its_end() -> None:
    host = with_head(state=said("ready"))
    host.named("vllmray-engine").becomes("exited", ended_at="2026-11-25T03:12:05.123456789Z")
    view = views.look(host, "vllmray")
    assert view.since == pytest.approx(1795576325.12, abs=0.01)


@pytest.mark.parametrize(
    ("phase", "problem"),
    [
        (
            "given-up",
            "the engine crash-looped; not restarting: the detail; it last ended with ValueError: no such model",
        ),
        ("insecure", "the engine was stopped, because the cluster is not secure: the detail"),
        ("starting", "the engine is not ready: the detail; it last ended with ValueError: no such model"),
    ],
)
def test_an_engine_that_died_before_says_of_what(phase: str, problem: str) -> None:
    host = with_head(state=said(phase, deaths=5))
    host.named("vllmray-engine").log += ["(EngineCore pid=1) ValueError: no such model", "INFO: nothing else"]
    assert views.look(host, "vllmray").problem == problem


def test_of_one_that_never_died_no_old_error_is_told() -> None:
    host = with_head(state=said("starting"))
    host.named("vllmray-engine").log += ["ValueError: a warning's own example"]
    assert views.look(host, "vllmray").problem == "the engine is not ready: the detail"


def test_a_worker_that_waits_for_its_head_says_so_and_since_when() -> None:
    host = good_host(json.dumps({"error": "no GCS"}), probes=[probe_answer(node_ip="10.0.0.2")])
    up_worker(host, config(head_ip="10.0.0.1", node_ip="10.0.0.2"), NO_WAIT, RecordingReporter())
    entry = Entry(1795576325.0, "waiting", "for the head at 10.0.0.1:6379: Connection refused")
    host.named("vllmray-worker").log += ["something of Ray's", line_of(entry), "more"]
    view = views.look(host, "vllmray")
    assert view.problem == "waiting for the head at 10.0.0.1:6379: Connection refused"
    assert view.since == entry.at


def test_the_word_of_an_engine_that_is_gone_does_not_count() -> None:
    """Its file is the head's too, and outlives its container's restart."""
    host = with_head(state=said("ready"))
    host.named("vllmray-engine").becomes("running", started_at="2026-11-25T03:12:05Z")
    view = views.look(host, "vllmray")
    assert not view.ready
    assert view.problem == "the engine is starting"
