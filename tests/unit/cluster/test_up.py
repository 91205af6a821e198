"""`up` against a host in memory: its order, what it keeps, what it takes back."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr

from tests.fake_host import FakeHost, Program, Ran, Record
from tests.unit.support import RecordingReporter, config, good_host, image_answer, probe_answer, ray_node, seen
from vllmray.cli.main import text_of
from vllmray.cli.options import LISTS, SWITCHES, option_fields
from vllmray.cluster.lock import Holder, lock_name
from vllmray.cluster.run import UpOptions
from vllmray.cluster.spec.commands import token_words, worker_command
from vllmray.cluster.spec.containers import CACHE
from vllmray.cluster.spec.contents import Secrets
from vllmray.cluster.up import up_head, up_worker
from vllmray.config.models import ClusterConfig
from vllmray.config.settings import flag_of
from vllmray.errors import ClusterStateError, HostError, UserInterruptError, WaitTimeoutError, WorkloadError
from vllmray.hosts.base import Lock, PullEvent

HEAD = ray_node("10.0.0.1", head=True)
WORKER = ray_node("10.0.0.2")
READY = (
    seen(shortfall="0 of 2 GPUs"),
    seen(HEAD, shortfall="1 of 2 GPUs"),
    seen(HEAD, WORKER),
    seen(HEAD, WORKER, phase="starting"),
    seen(HEAD, WORKER, phase="ready"),
)
QUICK = UpOptions()
TOKEN, KEY, SCRAPE = "the-token-of-ray-itself", "sk-the-key", "the-scrape-token"


def names(host: FakeHost) -> list[str]:
    return sorted(record.container.name for record in host.records.values())


def worker_config(**fields: object) -> ClusterConfig:
    return config(head_ip="10.0.0.1", **fields)


def with_secrets(**changes: object) -> ClusterConfig:
    return config(**({"ray_token": TOKEN, "api_key": KEY, "scrape_token": SCRAPE} | changes))


def test_the_head_comes_up_in_order_and_says_each_thing_once() -> None:
    host, reporter = good_host(*READY), RecordingReporter()
    outcome = up_head(host, config(), QUICK, reporter)
    assert outcome.ready
    assert outcome.config.node_ip == outcome.config.head_ip == "10.0.0.1"
    assert [call for call in host.calls if "probe" not in call] == ["start vllmray-head", "start vllmray-engine"]
    text = reporter.text()
    joining = text.index("vllmray up --role worker --head-ip 10.0.0.1 --token-file vllmray.token")
    assert text.index("On each other host, once the token is there (vllmray token | ssh HOST") < joining
    assert joining < text.index("2 GPUs in Ray: up to 900 s")
    assert "2 GPUs in Ray: 10.0.0.1 joined (head, 1 GPU)" in text
    assert "2 GPUs in Ray: 10.0.0.2 joined (worker, 1 GPU)" in text
    assert "2 GPUs in Ray: = 10.0.0.1: 1 GPU, 10.0.0.2: 1 GPU" in text
    assert text.count("10.0.0.2 joined") == 1
    assert "engine: starting" in text
    assert "engine: ~ the engine starts" in text
    assert text.endswith("engine: = answered a completion")


@pytest.mark.parametrize("up", [
    lambda host: up_head(host, config(), QUICK, RecordingReporter()),
    lambda host: up_worker(host, worker_config(), QUICK, RecordingReporter()),
])  # fmt: skip
def test_a_rootless_daemon_is_refused_before_anything_starts_where_nodes_have_the_hosts_network(
    up: Callable[[FakeHost], object],
) -> None:
    host = good_host(*READY)
    host.rootless = True
    with pytest.raises(HostError, match=r"^fake://host: this Docker daemon is rootless") as caught:
        up(host)
    assert (caught.value.exit_code, host.created, host.asked_for_locks) == (3, [], [])
    assert "--runtime native" in str(caught.value.hint)
    assert up_head(host, config(network="own", node_ip="10.0.0.1"), QUICK, RecordingReporter()).ready


def test_a_daemon_that_starts_nothing_after_a_reboot_is_said_with_the_command_that_makes_it() -> None:
    host, reporter = good_host(*READY), RecordingReporter()
    host.boot_command = "systemctl enable podman-restart.service"
    up_head(host, config(), QUICK, reporter)
    assert "starts no container after a reboot" in reporter.text()
    assert "\n    systemctl enable podman-restart.service\n" in reporter.text()


def test_the_probe_is_gone_before_the_head_starts() -> None:
    host = good_host(*READY)
    up_head(host, config(), QUICK, RecordingReporter())
    removed = [call.startswith("remove vllmray-probe-") for call in host.calls]
    assert removed.index(True) < host.calls.index("start vllmray-head")
    assert names(host) == ["vllmray-engine", "vllmray-head"]


def test_no_wait_returns_once_the_containers_run() -> None:
    host = good_host()
    outcome = up_head(host, config(), UpOptions(wait=False), RecordingReporter())
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


ENGINE_ANEW = ["remove vllmray-engine", "start vllmray-engine"]
BOTH_ANEW = ["remove vllmray-engine", "remove vllmray-head", "start vllmray-head", "start vllmray-engine"]


@pytest.mark.parametrize(
    ("change", "calls", "said"),
    [
        ({"max_model_len": 8192}, ENGINE_ANEW, "removing vllmray-engine: max_model_len: 4096 → 8192"),
        (
            {"vllm_args": ("--enforce-eager",)},
            ENGINE_ANEW,
            'removing vllmray-engine: vllm_args: [] → ["--enforce-eager"]',
        ),
        ({"shm_size": 1024**3}, BOTH_ANEW, "removing vllmray-head: shm_size: 17179869184 → 1073741824"),
        ({}, [], ""),
    ],
)
def test_another_configuration_replaces_only_what_it_touches_and_says_why(
    change: dict[str, Any], calls: list[str], said: str
) -> None:
    host = good_host(*READY)
    up_head(host, config(), QUICK, RecordingReporter())
    host.calls.clear()
    reporter = RecordingReporter()
    up_head(host, config(**change), UpOptions(recreate=True), reporter)
    assert [call for call in host.calls if "probe" not in call] == calls
    assert said in reporter.text()


def test_a_lost_engine_is_made_anew_and_the_head_kept() -> None:
    host = good_host(*READY)
    up_head(host, config(), QUICK, RecordingReporter())
    head = host.named("vllmray-head").container.id
    host.named("vllmray-engine").becomes("exited")
    up_head(host, config(), QUICK, RecordingReporter())
    assert host.named("vllmray-head").container.id == head
    assert host.named("vllmray-engine").container.status == "running"


@pytest.mark.parametrize(("network", "stays"), [("host", True), ("lab", False)])
def test_a_lost_head_takes_an_engine_with_it_that_is_in_its_network(network: str, stays: bool) -> None:
    host = good_host(*READY)
    up_head(host, config(network=network), QUICK, RecordingReporter())
    engine = host.named("vllmray-engine").container.id
    host.named("vllmray-head").becomes("exited")
    up_head(host, config(network=network), QUICK, RecordingReporter())
    assert (host.named("vllmray-engine").container.id == engine) is stays
    assert host.named("vllmray-head").container.status == "running"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (probe_answer(taken={"gcs": 6379}), "port 6379 (--ray-port gcs=…)"),
        (probe_answer(taken={"port": 8000}), "port 8000 (--port)"),
        (probe_answer(problem="10.9.9.9 is not an address of this host"), "10.9.9.9 is not an address"),
        ("Traceback: no json", "the check of the host from image image:1 failed"),
    ],
)
def test_what_a_node_could_not_live_with_is_refused_first(answer: str, words: str) -> None:
    host = good_host(probes=[answer])
    with pytest.raises(HostError, match=words.replace("(", r"\(").replace(")", r"\)")) as caught:
        up_head(host, config(), QUICK, RecordingReporter())
    assert caught.value.hint
    assert names(host) == []


@pytest.mark.parametrize(
    ("runtime", "held", "words"),
    [
        ("docker", image_answer(vllm=None), "image image:1 has no vLLM"),
        ("native", image_answer(ray=None), "image:1 has no Ray"),
        ("native", image_answer(ray=None, python="3.15.2"), "no wheel for Python 3.15.2, only for 3.10 to 3.14"),
        (
            "docker",
            image_answer(ray="2.51.2"),
            "image image:1 has Ray 2.51.2, which does not support token authentication: 2.52 is",
        ),
        ("native", image_answer(ray="1.13.0"), "image:1 has Ray 1.13.0, which does not support token authentication"),
        ("native", image_answer(ray="nightly"), "image:1 has Ray nightly, which does not support token authentication"),
        ("docker", image_answer(ray=None, ray_command="/bin/ray"), "has Ray of an unknown version, which does not"),
        (
            "docker",
            image_answer(versions={"ray": "2.60.0", "vllm": "0.33.0", "torch": "2.13.0+cpu", "torchaudio": "2.11.0"}),
            "torchaudio for CUDA and torch for CPUs",
        ),
    ],
)
def test_an_image_that_no_node_could_run_in_is_refused_first(runtime: str, held: dict[str, Any], words: str) -> None:
    host = good_host(holds=lambda image: held)
    with pytest.raises(HostError, match=words) as caught:
        up_head(host, config(runtime=runtime), QUICK, RecordingReporter())
    assert caught.value.hint
    assert names(host) == []


def test_a_port_below_1024_that_the_nodes_user_may_not_have_is_not_said_to_be_in_use() -> None:
    host = good_host(probes=[probe_answer(forbidden={"port": 80, "gcs": 1000})])
    with pytest.raises(HostError) as caught:
        up_head(host, config(port=80), QUICK, RecordingReporter())
    assert caught.value.message == (
        "fake://host: the nodes' user may not listen on port 80 (--port), 1000 (--ray-port gcs=…)"
    )
    assert "net.ipv4.ip_unprivileged_port_start=80" in str(caught.value.hint)
    assert "in use" not in text_of(caught.value)


def test_no_gpu_in_the_container_is_refused() -> None:
    host = good_host(probes=[probe_answer(gpus=0)])
    with pytest.raises(HostError, match="no nvidia GPU is visible"):
        up_head(host, config(accelerator="nvidia"), QUICK, RecordingReporter())


def test_a_cache_folder_that_docker_has_just_made_is_given_to_the_images_user() -> None:
    cache = {"writable": False, "user": "1000:1001", "fresh": True}
    host = good_host(*READY, probes=[probe_answer(cache=cache)])
    up_head(host, config(model_cache_dir="/srv/models"), QUICK, RecordingReporter())
    (gift,) = [spec for spec in host.created if spec.user]
    assert gift.user == "0:0"
    assert gift.argv[-2:] == (CACHE, "1000:1001")
    assert [(mount.source, mount.target) for mount in gift.mounts] == [("/srv/models", CACHE)]


@pytest.mark.parametrize(("fresh", "runtime"), [(False, "docker"), (True, "native")])
def test_a_cache_folder_of_another_is_refused_with_the_line_that_gives_it(*, fresh: bool, runtime: str) -> None:
    cache = {"writable": False, "user": "1000:1001", "fresh": fresh}
    host = good_host(probes=[probe_answer(cache=cache)])
    with pytest.raises(HostError, match="user 1000:1001 may not write into /srv/models") as caught:
        up_head(host, config(model_cache_dir="/srv/models", runtime=runtime), QUICK, RecordingReporter())
    assert "sudo chown -R 1000:1001 /srv/models" in str(caught.value.hint)
    assert [spec for spec in host.created if spec.user] == []
    assert names(host) == []


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
        up_head(host, config(join_timeout=0), UpOptions(retain=True), RecordingReporter())
    assert "Kept: vllmray-head, vllmray-engine" in (caught.value.hint or "")
    assert names(host) == ["vllmray-engine", "vllmray-head"]


def test_a_failure_never_takes_back_what_was_there_before() -> None:
    host = good_host(seen(HEAD, shortfall="1 of 2 GPUs"))
    up_head(host, config(), UpOptions(wait=False), RecordingReporter())
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


def died(line: str, deaths: int) -> str:
    """That line of watch.py, with so many deaths of the engine."""
    values = json.loads(line)
    values["engine"]["deaths"] = deaths
    return json.dumps(values)


@pytest.mark.parametrize("first", [0, 1])
def test_a_server_that_ends_in_its_container_is_an_error_at_once_even_before_the_first_look(first: int) -> None:
    """It would be started again, but who typed the command is to know."""
    loading = seen(HEAD, WORKER, phase="starting")
    host = good_host()

    def watch(record: Record, argv: tuple[str, ...]) -> Iterator[str | None]:
        yield died(loading, first)
        host.named("vllmray-engine").log.append("ValueError: unknown model")
        yield died(loading, 1)

    host.streams["python3"] = watch
    with pytest.raises(WorkloadError, match="the engine in vllmray-engine ended by itself") as caught:
        up_head(host, config(), QUICK, RecordingReporter())
    assert caught.value.details is not None
    assert names(host) == []


def test_deaths_from_before_are_no_error_for_who_only_waits() -> None:
    host = good_host(*READY)
    up_head(host, config(), UpOptions(wait=False), RecordingReporter())
    loading, ready = seen(HEAD, WORKER, phase="starting"), seen(HEAD, WORKER, phase="ready")
    again = good_host(died(loading, 2), died(ready, 2))
    host.streams = again.streams
    assert up_head(host, config(), QUICK, RecordingReporter()).ready


def test_who_waits_for_an_engine_that_was_given_up_is_told_at_once() -> None:
    host = good_host(*READY)
    up_head(host, config(), UpOptions(wait=False), RecordingReporter())
    host.streams = good_host(died(seen(HEAD, WORKER, phase="given-up"), 5)).streams
    with pytest.raises(WorkloadError):
        up_head(host, config(), QUICK, RecordingReporter())
    assert names(host) == ["vllmray-engine", "vllmray-head"]


def test_an_engine_that_was_stopped_as_not_secure_is_an_error_with_the_reason() -> None:
    open_ray = json.loads(seen(HEAD, WORKER, phase="insecure"))
    open_ray["engine"]["detail"] = "Ray does not require token authentication"
    host = good_host(json.dumps(open_ray))
    expected = "because the cluster is not secure: Ray does not require token authentication"
    with pytest.raises(WorkloadError, match=expected) as caught:
        up_head(host, config().typed_on("ssh://gpu2"), QUICK, RecordingReporter())
    assert str(caught.value.hint).partition("\n")[0].endswith("vllmray up --role head --recreate --host ssh://gpu2")
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
    assert (
        "timed out after 0 s waiting for an answer from the head at 10.0.0.1:6379: no answer (host down"
        in caught.value.message
    )
    assert "firewall" in (caught.value.hint or "")
    assert names(host) == []


def test_the_command_for_the_other_hosts_has_what_differs_from_a_workers_defaults() -> None:
    usual = ClusterConfig(head_ip="10.0.0.1")
    start = "vllmray up --role worker --head-ip 10.0.0.1 --token-file vllmray.token"
    assert worker_command(usual) == start
    special = ClusterConfig(
        head_ip="10.0.0.1",
        cluster="lab",
        model="/models/my model",
        accelerator="cpu",
        memlock=-1,
        shm_size="2g",
        user="1000:1000",
        rdma=True,
        writable_root=True,
        ray_metrics=True,
        volumes=("/data:/data:rw",),
        ray_ports={"gcs": 6390},
        env=("A=b c",),
        max_model_len=99,
        no_api_key=True,
        tls="self-signed",
        allow_routes=("/tokenize",),
    )
    assert worker_command(special) == (
        f"{start} --cluster lab --accelerator cpu --shm-size 2g --memlock unlimited --user 1000:1000 "
        "--rdma --writable-root --ray-metrics --volume /data:/data:rw --env 'A=b c' --ray-port gcs=6390 "
        "--model '/models/my model'"
    )


def test_the_command_for_the_other_hosts_loads_as_the_settings_that_a_worker_must_share() -> None:
    """Each word of it is an option of `up`; what it says comes out as it was."""
    head = config(
        head_ip="10.0.0.1",
        model="/m",
        memlock=-1,
        nofile=None,
        rdma=True,
        ray_metrics=True,
        volumes=("/a:/b", "/c:/d:rw"),
        env=("A=1,2",),
        ray_ports={"gcs": 6390},
        user="5:6",
    )
    parsed = parse(worker_command(head))
    assert parsed.pop("token_file") == "vllmray.token"
    for name in parsed:
        assert getattr(ClusterConfig.model_validate(parsed), name) == getattr(head, name), name
    assert set(parsed) == {
        *("head_ip", "image", "accelerator", "memlock", "nofile", "user", "model", "rdma", "ray_metrics", "volumes"),
        *("env", "ray_ports"),
    }


def parse(line: str) -> dict[str, Any]:
    """The settings of a worker's command line, by field, as text."""
    fields = {flag_of(name): name for name in option_fields()}
    given: dict[str, Any] = {}
    words = shlex.split(line)[4:]
    while words:
        name = fields[words.pop(0)]
        if name in SWITCHES:
            given[name] = True
        elif name == "ray_ports":
            port, _, number = words.pop(0).partition("=")
            given[name] = {**given.get(name, {}), port: number}
        elif name in LISTS:
            given[name] = [*given.get(name, []), words.pop(0)]
        else:
            given[name] = words.pop(0)
    return given


@pytest.mark.parametrize(("cluster", "option"), [("vllmray", ""), ("lab", " --cluster lab")])
def test_the_way_of_the_token_to_the_other_hosts_is_told_without_the_token(cluster: str, option: str) -> None:
    settled = config(cluster=cluster, ray_token=TOKEN)
    assert f"(vllmray token{option} | ssh HOST 'umask 077; cat > vllmray.token')" in token_words(settled)
    assert TOKEN not in token_words(settled) + worker_command(settled)


def test_a_node_has_the_secrets_of_its_settings_as_files_and_the_words_of_up_have_none() -> None:
    host, reporter = good_host(*READY), RecordingReporter()
    up_head(host, with_secrets(), QUICK, reporter)
    for name, expected in (("vllmray-head", {TOKEN}), ("vllmray-engine", {TOKEN, KEY, SCRAPE})):
        files = [file for file in host.named(name).spec.files if file.secret]
        assert {file.content.decode().strip() for file in files} == expected
        assert {file.mode for file in files} == {0o600}
    assert not [secret for secret in (TOKEN, KEY, SCRAPE) if secret in reporter.text()]


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({"ray_token": "another-token-of-ray"}, ["ray_token: not the one it was started with"]),
        ({"api_key": "sk-another"}, ["api_key: not the one it was started with"]),
        ({"scrape_token": "another"}, ["scrape_token: not the one it was started with"]),
        (
            {"api_key": None, "no_api_key": True, "ray_token": "another-token-of-ray"},
            [
                "ray_token: not the one it was started with",
                "no_api_key: false → true",
                "api_key: not the one it was started with",
            ],
        ),
    ],
)
def test_another_secret_than_the_running_ones_is_refused_by_its_name_alone(
    changes: dict[str, Any], lines: list[str]
) -> None:
    host = good_host(*READY)
    up_head(host, with_secrets(), QUICK, RecordingReporter())
    before = dict(host.records)
    with pytest.raises(ClusterStateError) as caught:
        up_head(host, with_secrets(**changes), QUICK, RecordingReporter())
    assert (caught.value.details or "").splitlines() == lines
    assert caught.value.exit_code == 4
    assert "--recreate" in (caught.value.hint or "")
    assert host.records == before


def test_another_secret_replaces_what_runs_when_asked_to() -> None:
    host = good_host(*READY)
    up_head(host, with_secrets(), QUICK, RecordingReporter())
    before = set(host.records)
    up_head(host, with_secrets(ray_token="another-token-of-ray"), UpOptions(recreate=True), RecordingReporter())
    assert not before & set(host.records)
    for name in ("vllmray-head", "vllmray-engine"):
        assert b"another-token-of-ray\n" in [file.content for file in host.named(name).spec.files]


def test_the_secrets_of_a_node_are_those_of_its_settled_address() -> None:
    """A certificate is for the address that is found only on the host."""
    asked: list[ClusterConfig] = []

    def secrets(settled: ClusterConfig) -> Secrets:
        asked.append(settled)
        return replace(Secrets.of(settled), certificate="PEM", certificate_key=SecretStr("PEM KEY"))

    host = good_host(*READY)
    up_head(host, with_secrets(), UpOptions(secrets=secrets), RecordingReporter())
    assert [settled.node_ip for settled in asked] == ["10.0.0.1"]
    engine = host.named("vllmray-engine").spec
    assert {b"PEM\n", b"PEM KEY\n"} <= {file.content for file in engine.files if file.secret}
    assert "--ssl-keyfile=/vllmray/secrets/tls.key" in engine.argv


REFUSAL = "AuthenticationError: InvalidAuthToken: Authentication token is missing or incorrect"


def test_a_head_that_refuses_the_token_is_an_error_in_one_line_and_nothing_is_created() -> None:
    host = good_host(seen(HEAD, WORKER), head=json.dumps({"error": REFUSAL}))
    with pytest.raises(HostError, match=r"the head 10\.0\.0\.1 refuses this cluster's token$") as caught:
        up_worker(host, worker_config(ray_token=TOKEN, cluster="lab"), QUICK, RecordingReporter())
    assert caught.value.exit_code == 3
    assert "`vllmray token --cluster lab` on the head's host" in str(caught.value.hint)
    assert TOKEN not in text_of(caught.value)
    assert names(host) == []
    assert [spec.name for spec in host.created if "probe" not in spec.name] == []


def test_the_token_that_a_head_is_asked_with_is_a_file_of_the_container_that_asks() -> None:
    host = good_host(seen(HEAD, WORKER), probes=[probe_answer(node_ip="10.0.0.2")])
    up_worker(host, worker_config(ray_token=TOKEN, hf_token="hf_secret"), QUICK, RecordingReporter())
    (asking,) = [spec for spec in host.created if spec.argv[1].endswith("/probes/head_labels.py")]
    assert [(file.content, file.path) for file in asking.files if file.secret] == [
        (f"{TOKEN}\n".encode(), asking.env["RAY_AUTH_TOKEN_PATH"])
    ]
    assert asking.env["RAY_AUTH_MODE"] == "token"
    assert [
        spec
        for spec in host.created
        if spec is not asking and "probe" in spec.name and any(f.secret for f in spec.files)
    ] == []


def test_a_head_that_was_restarted_meanwhile_is_no_refusal_of_the_token() -> None:
    """Ray says it in the same words, and a new watch of it gets an answer."""
    restarted = json.dumps({"error": "AuthenticationError: RPC error: WrongClusterID: Perhaps the GCS has restarted"})
    host = good_host(restarted, seen(HEAD, WORKER), probes=[probe_answer(node_ip="10.0.0.2")])
    assert up_worker(host, worker_config(ray_token=TOKEN), QUICK, RecordingReporter()).ready


def test_a_token_that_is_refused_only_while_joining_ends_the_wait_at_once_and_takes_the_worker_back() -> None:
    """As when the head was replaced meanwhile: its GCS answered nothing about versions."""
    host = good_host(
        json.dumps({"error": f"{REFUSAL}\nmore"}),
        head=json.dumps({"error": "RpcError: no answer"}),
        probes=[probe_answer(node_ip="10.0.0.2")],
    )
    with pytest.raises(HostError, match=r"the head 10\.0\.0\.1 refuses this cluster's token$") as caught:
        up_worker(host, worker_config(ray_token=TOKEN), QUICK, RecordingReporter())
    assert caught.value.exit_code == 3
    assert "start vllmray-worker" in host.calls
    assert names(host) == []


def test_a_head_whose_own_watch_is_refused_says_so() -> None:
    host = good_host(json.dumps({"error": REFUSAL}))
    with pytest.raises(HostError, match="refuses this cluster's token"):
        up_head(host, with_secrets(), QUICK, RecordingReporter())
    assert names(host) == []


OTHER = Holder("root@desk", "vllmray up", 4711)
LOCK = lock_name("vllmray")


class Busy(FakeHost):
    """Another command holds the lock once, when it is first asked for, and does something before it lets go."""

    def __init__(self, meanwhile: Callable[[FakeHost], object]) -> None:
        super().__init__(images=["image:1"])
        self.meanwhile: Callable[[FakeHost], object] | None = meanwhile

    def lock(self, name: str, image: str, labels: Mapping[str, str]) -> Lock:
        if self.meanwhile is None:
            return super().lock(name, image, labels)
        held = super().lock(name, image, OTHER.labels("vllmray"))
        try:
            return super().lock(name, image, labels)
        finally:
            act, self.meanwhile = self.meanwhile, None
            act(self)
            held.close()


def busy(meanwhile: Callable[[FakeHost], object], *watch_lines: str) -> FakeHost:
    good, host = good_host(*watch_lines), Busy(meanwhile)
    host.programs, host.streams = good.programs, good.streams
    return host


def test_while_containers_are_looked_at_and_changed_the_lock_is_held_and_not_while_it_waits() -> None:
    host = good_host(*READY)
    held: dict[str, bool] = {}
    programs, streams = dict(host.programs), dict(host.streams)

    def noted(name: str) -> Program:
        def program(record: Record, argv: tuple[str, ...]) -> Ran:
            # What an image holds is asked of each image once, outside of any cluster's turn.
            held[record.spec.name] = LOCK in host.locks
            return programs[name](record, argv)

        return program

    def watch(record: Record, argv: tuple[str, ...]) -> Iterator[str | None]:
        held["the wait"] = LOCK in host.locks
        return streams["python3"](record, argv)

    host.programs |= {name: noted(name) for name in ("python3", "ray")}
    host.streams["python3"] = watch
    up_head(host, config(), QUICK, RecordingReporter(), meanwhile=lambda: held.update(meanwhile=LOCK in host.locks))
    probed = [name for name in held if name.startswith("vllmray-image-probe")]
    assert [held.pop(name) for name in probed] == [False]
    asked = [name for name in held if name.startswith("vllmray-probe-")]
    assert {held.pop(name) for name in asked} == {True}
    assert held == {
        "vllmray-head": True,
        "vllmray-engine": True,
        "meanwhile": False,
        "the wait": False,
    }
    assert host.locks == {}


def test_what_another_command_made_while_it_was_waited_for_is_found() -> None:
    others = good_host()
    up_head(others, config(), UpOptions(wait=False), RecordingReporter())

    def finish(host: FakeHost) -> None:
        host.records |= others.records

    host, reporter = busy(finish, *READY), RecordingReporter()
    assert up_head(host, config(), QUICK, reporter).ready
    assert reporter.lines.index("cluster vllmray: = free") < reporter.lines.index("Ray head: = running already")
    assert [spec.name for spec in host.created if "probe" not in spec.name] == []


def test_the_clean_up_after_a_failure_takes_the_lock_again() -> None:
    host = good_host(seen(HEAD, shortfall="1 of 2 GPUs"))
    with pytest.raises(WaitTimeoutError):
        up_head(host, config(join_timeout=0), QUICK, RecordingReporter())
    assert host.asked_for_locks == [f"taken {LOCK}"] * 2
    assert host.locks == {}


def test_what_can_not_be_taken_back_is_named_beside_what_went_wrong() -> None:
    host = good_host(seen(HEAD, shortfall="1 of 2 GPUs"))
    host.stuck = {"vllmray-engine"}
    with pytest.raises(WaitTimeoutError) as caught:
        up_head(host, config(join_timeout=0), QUICK, RecordingReporter())
    assert "Not removed: vllmray-head, vllmray-engine on fake://host (fake://host: could not stop" in str(
        caught.value.hint
    )
    assert "`vllmray down` removes what is left." in str(caught.value.hint)
    assert str(caught.value.hint) in text_of(caught.value)
    assert host.locks == {}


@pytest.mark.parametrize("error", [ValueError("an error of ours"), SystemExit(3)])
def test_whatever_ends_a_start_what_was_made_is_taken_back_and_what_can_not_be_is_said(error: BaseException) -> None:
    def fail() -> None:
        raise error

    host = good_host(*READY)
    with pytest.raises(type(error)):
        up_head(host, config(), QUICK, RecordingReporter(), meanwhile=fail)
    assert (host.records, host.volumes, host.locks) == ({}, {}, {})
    host.stuck = {"vllmray-engine"}
    with pytest.raises(type(error)) as caught:
        up_head(host, config(), QUICK, RecordingReporter(), meanwhile=fail)
    notes = " ".join(caught.value.__notes__)
    assert "Not removed: vllmray-head, vllmray-engine on fake://host (" in notes
    assert "`vllmray down` removes what is left." in notes


def test_a_clean_up_that_itself_fails_in_an_unheard_of_way_hides_nothing() -> None:
    host = good_host(seen(HEAD, shortfall="1 of 2 GPUs"))

    def failing(container: str, *, timeout: float) -> None:
        if host.named(container).spec.name == "vllmray-engine":
            raise RuntimeError("a bug")
        FakeHost.stop_and_remove(host, container, timeout=timeout)

    host.stop_and_remove = failing  # type: ignore[method-assign]
    with pytest.raises(WaitTimeoutError) as caught:
        up_head(host, config(join_timeout=0), QUICK, RecordingReporter())
    assert "Not removed: vllmray-head, vllmray-engine on fake://host (RuntimeError: a bug)." in str(caught.value.hint)


def test_ctrl_c_in_what_runs_meanwhile_leaves_everything_too() -> None:
    def interrupted() -> None:
        raise UserInterruptError("stopped waiting; still running on elsewhere: worker")

    host = good_host(*READY)
    with pytest.raises(UserInterruptError, match="elsewhere"):
        up_head(host, config(), QUICK, RecordingReporter(), meanwhile=interrupted)
    assert sorted(record.spec.name for record in host.records.values()) == ["vllmray-engine", "vllmray-head"]


def test_a_refused_change_gives_the_lock_back() -> None:
    host = good_host(*READY)
    up_head(host, config(), QUICK, RecordingReporter())
    with pytest.raises(ClusterStateError):
        up_head(host, config(max_model_len=8192), QUICK, RecordingReporter())
    assert host.locks == {}


def test_a_worker_that_waits_for_its_head_lets_others_change_the_cluster_meanwhile() -> None:
    answers = [probe_answer(node_ip="10.0.0.2", connect=word) for word in ("refused", "open")]
    host = good_host(seen(HEAD, WORKER), probes=answers)
    assert up_worker(host, worker_config(), QUICK, RecordingReporter()).ready
    # To look, to look again, to start.
    assert host.asked_for_locks == [f"taken {LOCK}"] * 3
    assert host.locks == {}


def test_a_worker_whose_head_answers_takes_the_lock_once() -> None:
    host = good_host(seen(HEAD, WORKER), probes=[probe_answer(node_ip="10.0.0.2")])
    assert up_worker(host, worker_config(), QUICK, RecordingReporter()).ready
    assert host.asked_for_locks == [f"taken {LOCK}"]


def test_ctrl_c_before_anything_runs_says_so() -> None:
    host = good_host()

    def interrupted(record: Record, argv: tuple[str, ...]) -> Ran:
        if record.spec.name.startswith("vllmray-probe-"):
            raise KeyboardInterrupt
        return python(record, argv)

    python = host.programs["python3"]
    host.programs["python3"] = interrupted
    with pytest.raises(UserInterruptError, match="nothing of cluster vllmray runs on fake://host"):
        up_head(host, config(), QUICK, RecordingReporter())
    assert host.locks == {}


def test_what_a_container_that_was_removed_by_hand_has_left_goes_when_it_is_made_anew() -> None:
    host = good_host(seen(HEAD, WORKER, phase="ready"))
    mine, other = {"io.vllmray.cluster": "vllmray"}, {"io.vllmray.cluster": "another"}
    host.volumes |= {role: {**mine, "io.vllmray.role": role} for role in ("head", "engine", "worker")}
    host.volumes["another"] = {**other, "io.vllmray.role": "head"}
    up_head(host, config(), UpOptions(wait=False), RecordingReporter())
    assert {"worker", "another"} <= host.volumes.keys()
    assert not {"head", "engine"} & host.volumes.keys()
    # What runs already keeps what it has.
    host.volumes["head"] = {**mine, "io.vllmray.role": "head"}
    up_head(host, config(), UpOptions(wait=False), RecordingReporter())
    assert "head" in host.volumes
