"""The demo against a host in memory: what it chooses, what it finds, what it takes back."""

from __future__ import annotations

import hashlib
import socket
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.fake_host import FakeHost, Ran, Record
from tests.unit.support import RecordingReporter, RecordingStep, good_host, image_answer, probe_answer, ray_node, seen
from vllmray.demo.model import NAME, SUMS
from vllmray.demo.run import OWN_PORTS, Wanted, bring_up, choose_slots, free_port, free_ray_ports, worker_config
from vllmray.errors import ClusterStateError, HostError, UserInterruptError, WorkloadError

NODES = (ray_node("172.18.0.2", head=True), ray_node("172.18.0.3"))
TOKEN = "the-token-of-the-demo"
READY = seen(*NODES, phase="ready")
NAMES = ["vllmray-demo-engine", "vllmray-demo-head", "vllmray-demo-worker"]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache that holds a model already."""
    folder = tmp_path / NAME
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / SUMS).write_text(f"{hashlib.sha256(b'{}').hexdigest()}  config.json\n")
    return tmp_path


def wanted(cache: Path, **changes: object) -> Wanted:
    usual: dict[str, object] = {
        "cluster": "demo",
        "runtime": "docker",
        "image": "image:1",
        "base": None,
        "port": None,
        "cache": cache,
        "with_secrets": lambda config: config.model_copy(update={"ray_token": SecretStr(TOKEN)}),
    }
    return Wanted(**(usual | changes))  # type: ignore[arg-type]


def carrying(cache: Path, addresses: tuple[str, ...], *lines: str) -> FakeHost:
    """A host that has the model's folder, and whose nodes find themselves at these addresses in turn."""
    host = good_host(*lines, probes=[probe_answer(node_ip=address) for address in addresses * 3])
    host.folders.add(str(cache / NAME))
    return host


def docker(cache: Path, *lines: str) -> FakeHost:
    return carrying(cache, ("172.18.0.2", "172.18.0.3"), *lines)


def names(host: FakeHost) -> list[str]:
    return sorted(record.container.name for record in host.records.values())


def test_two_nodes_come_up_on_a_network_of_their_own(cache: Path) -> None:
    host, reporter = docker(cache, READY), RecordingReporter()
    config = bring_up(host, wanted(cache), reporter)
    assert names(host) == NAMES
    assert list(host.networks) == ["vllmray-demo"]
    specs = {record.spec.name: record.spec for record in host.records.values()}
    assert [specs[name].ip for name in NAMES] == [None, "172.18.0.2", "172.18.0.3"]
    for spec in specs.values():
        (token,) = [file for file in spec.files if file.path == spec.env["RAY_AUTH_TOKEN_PATH"]]
        assert (token.content, token.mode) == (f"{TOKEN}\n".encode(), 0o600)
    assert (config.node_ip, config.port, config.world_size) == ("172.18.0.2", 8000, 2)
    assert "no NVIDIA GPU found: two nodes with one simulated GPU each, on the CPU" in reporter.lines
    assert "On each other host" not in reporter.text()
    assert reporter.text().endswith("engine: = answered a completion")


def test_further_arguments_of_the_server_come_last_and_a_demo_with_others_is_not_taken_for_it(cache: Path) -> None:
    host, words = docker(cache, READY), ("--dtype", "bfloat16")
    host.folders.add("/lora")
    config = bring_up(host, wanted(cache, vllm_args=words, volumes=("/lora:/lora",)), RecordingReporter())
    for record in host.records.values():
        assert "/lora" in [mount.target for mount in record.spec.mounts]
    (engine,) = [record.spec for record in host.records.values() if record.spec.name == "vllmray-demo-engine"]
    at = engine.argv.index("--dtype")
    assert engine.argv[at : at + 2] == words
    assert at > engine.argv.index("--max-num-batched-tokens")
    for same in (words, ()):
        assert bring_up(host, wanted(cache, vllm_args=same), RecordingReporter()).vllm_args == config.vllm_args
    with pytest.raises(ClusterStateError, match="with other arguments for the vLLM server") as caught:
        bring_up(host, wanted(cache, vllm_args=("--dtype", "float32")), RecordingReporter())
    assert "vllmray down --cluster demo" in str(caught.value.hint)
    assert names(host) == NAMES


def test_a_second_demo_finds_the_first_and_starts_nothing(cache: Path) -> None:
    host = docker(cache, READY)
    probed = note_networks_of_probes(host)
    first = bring_up(host, wanted(cache), RecordingReporter())
    started = [call for call in host.calls if "probe" not in call]
    reporter = RecordingReporter()
    second = bring_up(host, wanted(cache, image=None), reporter)
    assert [call for call in host.calls if "probe" not in call] == started
    worker = "container:vllmray-demo-worker"
    assert probed[-3:] == ["container:vllmray-demo-head", worker, worker]
    assert (second.node_ip, second.port, second.model) == (first.node_ip, first.port, first.model)
    assert reporter.lines[0] == "cluster demo is already running"


def test_the_nodes_of_a_demo_run_as_who_types_the_command_and_are_found_again(cache: Path) -> None:
    host = docker(cache, READY)
    bring_up(host, wanted(cache, caller="1000:1001"), RecordingReporter())
    assert {record.spec.user for record in host.records.values()} == {"1000:1001"}
    before = dict(host.records)
    bring_up(host, wanted(cache, image=None, caller="1000:1001"), RecordingReporter())
    assert host.records == before


def note_networks_of_probes(host: FakeHost) -> list[str]:
    """The networks that short-lived containers were given, as they come."""
    networks: list[str] = []
    python = host.programs["python3"]

    def noting(record: Record, argv: tuple[str, ...]) -> Ran:
        if "/probes/" in argv[1]:
            networks.append(record.spec.network)
        return python(record, argv)

    host.programs["python3"] = noting
    return networks


def test_what_is_left_of_a_demo_goes_before_a_new_one(cache: Path) -> None:
    host = docker(cache, READY)
    bring_up(host, wanted(cache), RecordingReporter())
    host.stop_and_remove("vllmray-demo-worker", timeout=0)
    reporter = RecordingReporter()
    bring_up(host, wanted(cache), reporter)
    assert "removing the remains of cluster demo" in reporter.text()
    assert names(host) == NAMES


def test_a_demo_that_fails_leaves_nothing_unless_told_to(cache: Path) -> None:
    def failing() -> FakeHost:
        host = docker(cache, seen(*NODES, phase="starting"))
        python = host.programs["python3"]

        def ending(record: object, argv: tuple[str, ...]) -> object:
            ran = python(record, argv)  # type: ignore[arg-type]
            return ran if "/probes/" in argv[1] or argv[1] == "-c" else type(ran)(("out of memory",), 1)

        host.programs["python3"] = ending  # type: ignore[assignment]
        return host

    host = failing()
    with pytest.raises(WorkloadError):
        bring_up(host, wanted(cache), RecordingReporter())
    assert (names(host), host.networks, host.volumes) == ([], {}, {})
    host = failing()
    with pytest.raises(WorkloadError):
        bring_up(host, wanted(cache, retain=True), RecordingReporter())
    assert names(host) == NAMES


class _Talking(RecordingReporter):
    """Ends the demo when a step of that title begins."""

    def __init__(self, title: str, error: BaseException) -> None:
        super().__init__()
        self._title, self._error = title, error

    def step(self, title: str) -> RecordingStep:
        if title == self._title:
            raise self._error
        return super().step(title)


@pytest.mark.parametrize("title", ["Ray worker", "vLLM server"])
def test_whatever_ends_a_demo_leaves_nothing_and_what_can_not_be_removed_is_said(cache: Path, title: str) -> None:
    host = docker(cache, READY)
    with pytest.raises(ValueError, match="a bug"):
        bring_up(host, wanted(cache), _Talking(title, ValueError("a bug")))
    assert (names(host), host.networks, host.volumes) == ([], {}, {})
    host.stuck = {"vllmray-demo-head"}
    with pytest.raises(ValueError, match="a bug") as caught:
        bring_up(host, wanted(cache), _Talking(title, ValueError("a bug")))
    assert "cluster demo on fake://host (fake://host: could not stop" in caught.value.__notes__[-1]


@pytest.mark.parametrize("title", ["Ray worker", "engine"])
def test_ctrl_c_leaves_what_runs_of_a_demo_and_the_same_again_goes_on_with_it(cache: Path, title: str) -> None:
    host = docker(cache, READY)
    with pytest.raises(UserInterruptError, match="still running on fake://host: "):
        bring_up(host, wanted(cache), _Talking(title, KeyboardInterrupt()))
    assert names(host)[:2] == NAMES[:2]
    bring_up(host, wanted(cache), RecordingReporter())
    assert names(host) == NAMES


@pytest.mark.parametrize(
    ("found", "for_cpus", "accelerator", "ids"),
    [
        (0, True, "cpu", ("", "")),
        (1, False, "nvidia", ("0",)),
        (2, False, "nvidia", ("0", "1")),
        (8, False, "nvidia", ("0", "1")),
        (2, True, "cpu", ("", "")),
    ],
)
def test_nvidia_gpus_are_used_where_they_can_be_and_it_says_so(
    found: int, for_cpus: bool, accelerator: str, ids: tuple[str, ...]
) -> None:
    slots = choose_slots(found, is_for_cpus=for_cpus)
    assert (slots.accelerator, slots.ids) == (accelerator, ids)
    assert "NVIDIA GPU" in slots.said
    assert ("simulated" in slots.said) == (accelerator == "cpu")


def test_natively_each_node_has_an_address_and_ports_of_its_own(cache: Path) -> None:
    nodes = (ray_node("127.0.0.2", head=True), ray_node("127.0.0.3"))
    host = carrying(cache, ("127.0.0.2", "127.0.0.3"), seen(*nodes, phase="ready"))
    config = bring_up(host, wanted(cache, runtime="native"), RecordingReporter())
    assert host.networks == {}
    worker = worker_config(config, choose_slots(0, is_for_cpus=True), 1)
    assert (config.node_ip, worker.node_ip, worker.head_ip) == ("127.0.0.2", "127.0.0.3", "127.0.0.2")
    theirs = {getattr(worker.ray_ports, name) for name in OWN_PORTS}
    assert not theirs & {getattr(config.ray_ports, name) for name in OWN_PORTS}
    assert worker.with_loopback_ports().ray_ports.gcs == config.ray_ports.gcs


def test_ports_in_use_are_passed_over() -> None:
    usual = free_ray_ports()
    port = free_port()
    with socket.create_server(("", usual.gcs)), socket.create_server(("", port)):
        assert free_ray_ports().gcs != usual.gcs
        assert free_port() != port


def test_a_build_that_fails_ends_the_demo_before_anything_starts(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = docker(cache, READY)
    monkeypatch.setattr(host, "build", failing_build)
    with pytest.raises(HostError, match="could not build"):
        bring_up(host, wanted(cache, image=None), RecordingReporter())
    assert names(host) == []


def test_what_lacks_vllm_is_refused_before_the_model_is_fetched(tmp_path: Path) -> None:
    host = good_host(READY, holds=lambda image: image_answer(vllm=None))
    with pytest.raises(HostError, match="has no vLLM"):
        bring_up(host, wanted(tmp_path / "empty"), RecordingReporter())
    assert names(host) == []
    assert not (tmp_path / "empty" / NAME).exists()


def failing_build(spec: object, tag: str) -> object:
    raise HostError(f"could not build {tag}", details="no space left on device")
