"""`up` against a host in memory: its order, what it keeps, what it takes back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fake_host import FakeHost, Record
from tests.unit.support import RecordingReporter, config, good_host, probe_answer, ray_node, seen
from vllmray.cluster.up import Options, up_head, up_worker, worker_command
from vllmray.config.models import ClusterConfig
from vllmray.errors import ClusterStateError, HostError, UserInterruptError, WaitTimeoutError, WorkloadError
from vllmray.hosts.base import PullEvent

HEAD = ray_node("10.0.0.1", head=True)
WORKER = ray_node("10.0.0.2")
READY = (
    seen(shortfall="0 of 2 GPUs"),
    seen(HEAD, shortfall="1 of 2 GPUs"),
    seen(HEAD, WORKER),
    seen(HEAD, WORKER, phase="starting"),
    seen(HEAD, WORKER, phase="ready"),
)
QUICK = Options()


def names(host: FakeHost) -> list[str]:
    return sorted(record.container.name for record in host.records.values())


def worker_config(**fields: object) -> ClusterConfig:
    return config(head_ip="10.0.0.1", **fields)


def test_the_head_comes_up_in_order_and_says_each_thing_once() -> None:
    host, reporter = good_host(*READY), RecordingReporter()
    outcome = up_head(host, config(), QUICK, reporter)
    assert outcome.ready
    assert outcome.config.node_ip == outcome.config.head_ip == "10.0.0.1"
    assert [call for call in host.calls if "probe" not in call] == ["start vllmray-head", "start vllmray-engine"]
    text = reporter.text()
    assert text.index("vllmray up --role worker --head-ip 10.0.0.1") < text.index("2 GPUs in Ray: up to 900 s")
    assert "2 GPUs in Ray: 10.0.0.1 joined (head, 1 GPU)" in text
    assert "2 GPUs in Ray: 10.0.0.2 joined (worker, 1 GPU)" in text
    assert "2 GPUs in Ray: = 10.0.0.1: 1 GPU, 10.0.0.2: 1 GPU" in text
    assert text.count("10.0.0.2 joined") == 1
    assert "engine: starting" in text
    assert "engine: ~ the engine starts" in text
    assert text.endswith("engine: = answered a completion")


def test_the_probe_is_gone_before_the_head_starts() -> None:
    host = good_host(*READY)
    up_head(host, config(), QUICK, RecordingReporter())
    assert host.calls.index("remove vllmray-probe") < host.calls.index("start vllmray-head")
    assert names(host) == ["vllmray-engine", "vllmray-head"]


def test_no_wait_returns_once_the_containers_run() -> None:
    host = good_host()
    outcome = up_head(host, config(), Options(wait=False), RecordingReporter())
    assert not outcome.ready
    assert names(host) == ["vllmray-engine", "vllmray-head"]


def test_a_missing_image_is_pulled_with_each_layer_told() -> None:
    host, reporter = good_host(*READY), RecordingReporter()
    del host.images["image:1"]
    host.registry["image:1"] = [
        PullEvent("", "Pulling from image"),
        PullEvent("aa", "Downloading", 5, 10),
        PullEvent("aa", "Pull complete"),
    ]
    up_head(host, config(), QUICK, reporter)
    assert "image image:1: aa 5/10 Downloading" in reporter.lines
    assert "image image:1: aa 1/1 Pull complete" in reporter.lines
    assert "image image:1: = pulled" in reporter.lines


def test_the_same_again_restarts_nothing() -> None:
    host = good_host(*READY)
    up_head(host, config(), QUICK, RecordingReporter())
    before = dict(host.records)
    up_head(host, config(), QUICK, RecordingReporter())
    assert host.records == before


def test_another_configuration_is_refused_with_the_fields_that_differ() -> None:
    host = good_host(*READY)
    up_head(host, config(), QUICK, RecordingReporter())
    before = dict(host.records)
    with pytest.raises(ClusterStateError) as caught:
        up_head(host, config(max_model_len=8192, shm_size="8g"), QUICK, RecordingReporter())
    assert (caught.value.details or "").splitlines() == [
        "shm_size: 17179869184 → 8589934592",
        "max_model_len: 4096 → 8192",
    ]
    assert "--recreate" in (caught.value.hint or "")
    assert host.records == before


def test_another_configuration_replaces_engine_then_head_when_asked_to() -> None:
    host = good_host(*READY)
    up_head(host, config(), QUICK, RecordingReporter())
    host.calls.clear()
    up_head(host, config(max_model_len=8192), Options(recreate=True), RecordingReporter())
    assert [call for call in host.calls if "probe" not in call] == [
        "remove vllmray-engine",
        "remove vllmray-head",
        "start vllmray-head",
        "start vllmray-engine",
    ]


def test_a_lost_engine_is_made_anew_and_the_head_kept() -> None:
    host = good_host(*READY)
    up_head(host, config(), QUICK, RecordingReporter())
    head = host.named("vllmray-head").container.id
    host.named("vllmray-engine").becomes("exited")
    up_head(host, config(), QUICK, RecordingReporter())
    assert host.named("vllmray-head").container.id == head
    assert host.named("vllmray-engine").container.status == "running"


def test_a_lost_head_takes_its_engine_with_it() -> None:
    host = good_host(*READY)
    up_head(host, config(), QUICK, RecordingReporter())
    engine = host.named("vllmray-engine").container.id
    host.named("vllmray-head").becomes("exited")
    up_head(host, config(), QUICK, RecordingReporter())
    assert host.named("vllmray-engine").container.id != engine


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (probe_answer(taken={"gcs": 6379}), "port 6379 (--ray-port gcs=…)"),
        (probe_answer(taken={"port": 8000}), "port 8000 (--port)"),
        (probe_answer(problem="10.9.9.9 is not an address of this host"), "10.9.9.9 is not an address"),
        (probe_answer(software={"ray_command": None}), "image image:1 has no Ray"),
        (probe_answer(software={"ray_command": "/ray", "vllmray": None}), "has no vllmray"),
        ("Traceback: no json", "the look at the host from image image:1 failed"),
    ],
)
def test_what_a_node_could_not_live_with_is_refused_first(answer: str, words: str) -> None:
    host = good_host(probes=[answer])
    with pytest.raises(HostError, match=words.replace("(", r"\(").replace(")", r"\)")) as caught:
        up_head(host, config(), QUICK, RecordingReporter())
    assert caught.value.hint
    assert names(host) == []


def test_no_gpu_in_the_container_is_refused() -> None:
    host = good_host(probes=[probe_answer(gpus=0)])
    with pytest.raises(HostError, match="no nvidia GPU is visible"):
        up_head(host, config(accelerator="nvidia"), QUICK, RecordingReporter())


def test_all_gpus_are_as_many_as_the_container_sees() -> None:
    host = good_host(*READY, probes=[probe_answer(gpus=8)])
    up_head(host, config(accelerator="nvidia"), QUICK, RecordingReporter())
    assert "--num-gpus=8" in host.named("vllmray-head").spec.argv


def test_a_wait_that_ends_takes_back_what_was_made_and_shows_a_log() -> None:
    host = good_host(seen(HEAD, shortfall="1 of 2 GPUs"))
    with pytest.raises(WaitTimeoutError) as caught:
        up_head(host, config(join_timeout=0), QUICK, RecordingReporter())
    assert "1 of 2 GPUs; 10.0.0.1: 1 GPU" in caught.value.message
    assert "the engine starts" in (caught.value.details or "")
    assert names(host) == []
    assert host.volumes == {}


def test_retain_keeps_what_was_made() -> None:
    host = good_host(seen(HEAD, shortfall="1 of 2 GPUs"))
    with pytest.raises(WaitTimeoutError) as caught:
        up_head(host, config(join_timeout=0), Options(retain=True), RecordingReporter())
    assert "Kept: vllmray-head, vllmray-engine" in (caught.value.hint or "")
    assert names(host) == ["vllmray-engine", "vllmray-head"]


def test_a_failure_never_takes_back_what_was_there_before() -> None:
    host = good_host(seen(HEAD, shortfall="1 of 2 GPUs"))
    up_head(host, config(), Options(wait=False), RecordingReporter())
    with pytest.raises(WaitTimeoutError):
        up_head(host, config(join_timeout=0), QUICK, RecordingReporter())
    assert names(host) == ["vllmray-engine", "vllmray-head"]


def test_an_engine_that_ends_is_an_error_at_once_with_its_log() -> None:
    host = good_host(*READY[:4])

    def watch(record: Record, argv: tuple[str, ...]) -> Iterator[str | None]:
        yield from READY[:4]
        host.named("vllmray-engine").becomes("restarting", restarts=1, exit_code=1)
        host.named("vllmray-engine").log.append("ValueError: unknown model")
        yield None

    host.streams["python3"] = watch
    with pytest.raises(WorkloadError) as caught:
        up_head(host, config(), QUICK, RecordingReporter())
    assert "vllmray-engine ended by itself (exit code 1)" in caught.value.message
    assert "ValueError: unknown model" in (caught.value.details or "")
    assert names(host) == []


def test_ctrl_c_leaves_everything_and_says_how_to_go_on() -> None:
    host = good_host()

    def interrupted(record: Record, argv: tuple[str, ...]) -> Iterator[str | None]:
        yield seen(HEAD, shortfall="1 of 2 GPUs")
        raise KeyboardInterrupt

    host.streams["python3"] = interrupted
    with pytest.raises(UserInterruptError) as caught:
        up_head(host, config(), QUICK, RecordingReporter())
    assert "still running on fake://host: vllmray-head, vllmray-engine" in caught.value.message
    assert "vllmray down" in (caught.value.hint or "")
    assert names(host) == ["vllmray-engine", "vllmray-head"]


def test_a_watch_that_ends_is_started_again() -> None:
    host = good_host()
    rounds = iter([(READY[0],), READY])

    def watch(record: Record, argv: tuple[str, ...]) -> Iterator[str | None]:
        yield from next(rounds)

    host.streams["python3"] = watch
    assert up_head(host, config(), QUICK, RecordingReporter()).ready


def test_a_worker_joins_and_is_listed() -> None:
    host = good_host(seen(HEAD), seen(HEAD, WORKER), probes=[probe_answer(node_ip="10.0.0.2")])
    outcome = up_worker(host, worker_config(), QUICK, RecordingReporter())
    assert outcome.config.node_ip == "10.0.0.2"
    assert names(host) == ["vllmray-worker"]
    assert "--address=10.0.0.1:6379" in host.named("vllmray-worker").spec.argv


def test_a_worker_with_fewer_gpus_listed_than_it_has_is_not_there_yet() -> None:
    host = good_host(seen(HEAD, ray_node("10.0.0.2", gpus=1)), probes=[probe_answer(node_ip="10.0.0.2")])
    with pytest.raises(WaitTimeoutError, match=r"10\.0\.0\.2 is not listed by the head yet"):
        up_worker(host, worker_config(gpus="2", join_timeout=0), QUICK, RecordingReporter())


def test_a_worker_says_what_it_waits_for_and_goes_on_when_the_head_answers() -> None:
    refused, answers = probe_answer(node_ip="10.0.0.2", connect="refused"), probe_answer(node_ip="10.0.0.2")
    host = good_host(seen(HEAD, WORKER), probes=[refused, refused, answers])
    reporter = RecordingReporter()
    assert up_worker(host, worker_config(), QUICK, reporter).ready
    said = "head 10.0.0.1:6379: connection refused (nothing listens there yet)"
    assert reporter.lines.count(said) == 1


def test_a_head_that_never_answers_is_a_timeout_and_nothing_was_started() -> None:
    host = good_host(probes=[probe_answer(connect="no answer")])
    with pytest.raises(WaitTimeoutError) as caught:
        up_worker(host, worker_config(join_timeout=0), QUICK, RecordingReporter())
    assert "no answer from the head at 10.0.0.1:6379 after 0 s: no answer (host down" in caught.value.message
    assert "firewall" in (caught.value.hint or "")
    assert names(host) == []


def test_the_command_for_the_other_hosts_has_what_differs_from_a_workers_defaults() -> None:
    assert worker_command(ClusterConfig(head_ip="10.0.0.1")) == "vllmray up --role worker --head-ip 10.0.0.1"
    special = ClusterConfig(
        head_ip="10.0.0.1",
        cluster="lab",
        model="/models/my model",
        accelerator="cpu",
        memlock=None,
        shm_size="2g",
        ray_ports={"gcs": 6390},
        env=("A=b c",),
        max_model_len=99,
    )
    assert worker_command(special) == (
        "vllmray up --role worker --head-ip 10.0.0.1 --cluster lab --accelerator cpu --shm-size 2g --memlock default "
        "--model '/models/my model' --env 'A=b c' --ray-port gcs=6390"
    )
