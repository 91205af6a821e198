"""Whole containers, as the docker run lines that would make them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.unit.support import NODE, config, engine_spec, head_spec, worker_spec
from vllmray.cluster.spec.containers import Node
from vllmray.cluster.spec.contents import PAYLOAD, RAY_TOKEN, SITE, Contents, Secrets
from vllmray.cluster.spec.labels import CONFIG, ROLE, changed_fields, container_labels
from vllmray.cluster.spec.payload import contents
from vllmray.cluster.spec.probes import own_cache_spec, probe_spec, ray_client_spec
from vllmray.config.gpu_words import Gpus
from vllmray.config.models import MAX_NEIGHBOURS, ClusterConfig
from vllmray.errors import ConfigError
from vllmray.hosts.base import ContainerSpec, GpuRequest
from vllmray.hosts.run_line import process_line, run_line
from vllmray.ray.ports import RayPorts
from vllmray.version import __version__

RAY, HF, KEY, SCRAPE = "the-token-of-ray", "hf_secret", "sk-the-key-of-the-endpoint", "the-token-for-metrics"
CONTENTS = Contents(
    payload={f"{PAYLOAD}/node/watch.py": b"watch", f"{PAYLOAD}/engine/launch.py": b"launch"},
    secrets=Secrets(SecretStr(RAY), SecretStr(HF), SecretStr(KEY), SecretStr(SCRAPE), "PEM", SecretStr("PEM KEY")),
)
SOURCES = {
    PAYLOAD: "/src/payload",
    RAY_TOKEN: "/state/ray_token",
}
CDI = ("nvidia.com/gpu=0", "nvidia.com/gpu=1", "nvidia.com/gpu=10", "nvidia.com/gpu=3", "nvidia.com/gpu=all")
AMD = ("/dev/kfd", "/dev/dri/renderD129", "/dev/dri/renderD130", "/dev/dri/renderD131", "gid=109")
WSL = ("/dev/dxg",)
DATA = Path(__file__).parents[2] / "data" / "lines"


def line(spec: ContainerSpec) -> str:
    return run_line(spec, SOURCES)


def full_config() -> ClusterConfig:
    return ClusterConfig(
        model="meta-llama/Llama-3.1-70B-Instruct",
        model_cache_dir="/srv/models",
        image="registry/vllm@sha256:abc",
        head_ip="10.0.0.1",
        node_ip="10.0.0.1",
        network_interface="eth0",
        hf_token="hf_secret",
        volumes=("/data:/data:ro",),
        env=("NCCL_DEBUG=INFO",),
        vllm_args=("--enable-prefix-caching", "--chat-template", "with 'quotes'"),
    )


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("head", head_spec(full_config(), NODE, CONTENTS)),
        ("worker", worker_spec(full_config(), Node("10.0.0.2", "ens5", 2), CONTENTS)),
        ("engine", engine_spec(full_config(), NODE, CONTENTS)),
        (
            "engine-cpu",
            engine_spec(config(model="/models/smol", model_cache_dir="/m", head_ip="10.0.0.1"), NODE, CONTENTS),
        ),
        (
            "head-amd",
            head_spec(config(accelerator="amd", gpus="0,1", cluster="lab"), replace(NODE, gpu_devices=AMD), CONTENTS),
        ),
        ("head-wsl", head_spec(config(accelerator="nvidia", gpus="1"), replace(NODE, gpu_devices=WSL), CONTENTS)),
        (
            "head-cdi",
            head_spec(config(accelerator="nvidia"), Node("10.0.0.1", "eth0", 2, CDI), CONTENTS),
        ),
    ],
)
def test_the_line_of(name: str, spec: ContainerSpec) -> None:
    """tests/unit/data/lines holds the lines; read a difference there as a change of what users get."""
    said = line(spec).replace(f"io.vllmray.version={__version__}", "io.vllmray.version=0.1.0")
    assert said == (DATA / f"{name}.txt").read_text().rstrip("\n")


def test_a_secret_is_a_file_of_the_containers_user_and_nowhere_else() -> None:
    expected = {"head": {RAY, HF}, "worker": {RAY, HF}, "engine": {RAY, HF, KEY, SCRAPE, "PEM", "PEM KEY"}}
    for make in (head_spec, worker_spec, engine_spec):
        spec = make(full_config(), NODE, CONTENTS)
        files = [file for file in spec.files if file.secret]
        assert {file.content.decode().rstrip("\n") for file in files} == expected[spec.labels[ROLE]]
        assert {file.mode for file in files} == {0o600}
        assert spec.env["HF_TOKEN_PATH"] in {file.path for file in files}
        assert spec.env["RAY_AUTH_TOKEN_PATH"] in {file.path for file in files}
        elsewhere = line(spec) + repr(spec) + json.dumps([dict(spec.env), dict(spec.labels), list(spec.argv)])
        assert not [secret for secret in (RAY, HF, KEY, SCRAPE) if secret in elsewhere]


def test_the_engine_knows_where_ray_says_that_it_asks_for_a_token_and_whether_it_is_to_ask_for_a_key_itself() -> None:
    ports = RayPorts(dashboard=9265)
    asks, open_to_all = (
        engine_spec(config(ray_ports=ports, no_api_key=no_key), NODE, CONTENTS).argv for no_key in (False, True)
    )
    assert "--dashboard-port=9265" in asks
    assert [word for word in open_to_all if word not in asks] == ["--no-api-key"]


def test_without_a_hugging_face_token_there_is_no_file_for_one() -> None:
    spec = head_spec(config(), NODE, Contents())
    assert not [file for file in spec.files if file.secret]
    assert "HF_TOKEN_PATH" not in spec.env


def test_whoever_speaks_to_ray_has_its_token_and_no_other_secret() -> None:
    spec = ray_client_spec(config(), CONTENTS.secrets)
    assert [file.path for file in spec.files] == [RAY_TOKEN] == [spec.env["RAY_AUTH_TOKEN_PATH"]]
    assert spec.env["RAY_AUTH_MODE"] == "token"
    assert not [file for file in probe_spec(config(), (), "{}").files if file.secret]


def test_every_container_is_closed_but_for_what_is_shown_to_be_needed() -> None:
    usual = full_config()
    specs = [make(usual, NODE, CONTENTS) for make in (head_spec, worker_spec, engine_spec)]
    specs += [probe_spec(usual, (), "{}"), ray_client_spec(usual, CONTENTS.secrets)]
    for spec in specs:
        assert (spec.cap_drop, spec.cap_add, spec.read_only) == (("ALL",), (), True)
        assert spec.security_opt == ("no-new-privileges",)
        assert "memlock" not in spec.ulimits
        written = {mount.target for mount in spec.mounts if not mount.read_only}
        assert written <= {"/vllmray", "/var/lib/vllmray/cache", "/tmp/ray", "/dev/shm"}
    asked = usual.model_copy(update={"rdma": True, "writable_root": True, "port": 443, "user": "1000:1000"})
    node, engine = worker_spec(asked, NODE, CONTENTS), engine_spec(asked, NODE, CONTENTS)
    assert (node.cap_add, engine.cap_add) == (("IPC_LOCK",), ("IPC_LOCK", "NET_BIND_SERVICE"))
    assert (node.read_only, node.user, node.ulimits["memlock"]) == (False, "1000:1000", -1)
    assert node.env["USER"]
    assert "/dev/infiniband" in node.devices
    assert own_cache_spec(usual, "1:1").cap_add == ("CHOWN",)


def test_only_who_asks_for_them_gets_rays_metric_ports() -> None:
    closed = head_spec(config(), NODE, CONTENTS).env
    assert (closed["AUTOSCALER_METRIC_PORT"], closed["RAY_enable_metrics_collection"]) == ("65536", "0")
    opened = head_spec(config(ray_metrics=True), NODE, CONTENTS).env
    assert (opened["AUTOSCALER_METRIC_PORT"], opened["DASHBOARD_METRIC_PORT"]) == ("44217", "44227")
    assert "RAY_enable_metrics_collection" not in opened


def test_the_guard_sees_a_request_before_any_middleware_of_the_users() -> None:
    argv = engine_spec(config(vllm_args=("--middleware", "mine.Own"), head_ip="10.0.0.1"), NODE, CONTENTS).argv
    assert argv[-1] == "--middleware=vllmray.payload.engine.guard.Guard"


def test_the_users_environment_wins_over_ours() -> None:
    spec = head_spec(config(env=("GLOO_SOCKET_IFNAME=ib0",)), NODE, CONTENTS)
    assert spec.env["GLOO_SOCKET_IFNAME"] == "ib0"
    assert spec.env["NCCL_SOCKET_IFNAME"] == "=eth0"


def test_every_library_is_given_one_interface_and_none_whose_name_only_begins_so() -> None:
    spec = worker_spec(config(head_ip="10.0.0.9"), replace(NODE, interface="eth1"), CONTENTS)
    names = {name: spec.env[name] for name in spec.env if name.endswith("_SOCKET_IFNAME")}
    assert names == {"GLOO_SOCKET_IFNAME": "eth1", "NCCL_SOCKET_IFNAME": "=eth1", "TP_SOCKET_IFNAME": "eth1"}
    own = worker_spec(config(head_ip="10.0.0.9", env=("NCCL_SOCKET_IFNAME=eth,ib",)), NODE, CONTENTS)
    assert own.env["NCCL_SOCKET_IFNAME"] == "eth,ib"


BY_UUID = ("nvidia.com/gpu=GPU-ab", "nvidia.com/gpu=GPU-cd")
MIG = ("nvidia.com/gpu=0:0", "nvidia.com/gpu=0:1", "nvidia.com/gpu=1", "nvidia.com/gpu=all")


@pytest.mark.parametrize(
    ("gpus", "cdi", "request_made"),
    [
        ("all", (), GpuRequest("nvidia", count=-1)),
        ("2", (), GpuRequest("nvidia", count=2)),
        ("0,3", (), GpuRequest("nvidia", device_ids=("0", "3"))),
        ("all", CDI, GpuRequest("cdi", device_ids=("nvidia.com/gpu=all",))),
        ("2", CDI, GpuRequest("cdi", device_ids=("nvidia.com/gpu=0", "nvidia.com/gpu=1"))),
        ("4", CDI, GpuRequest("cdi", device_ids=(*CDI[:2], "nvidia.com/gpu=3", "nvidia.com/gpu=10"))),
        ("0,3", CDI, GpuRequest("cdi", device_ids=("nvidia.com/gpu=0", "nvidia.com/gpu=3"))),
        ("all", CDI[:2], GpuRequest("cdi", device_ids=CDI[:2])),
        ("all", BY_UUID, GpuRequest("cdi", device_ids=BY_UUID)),
        ("1", BY_UUID, GpuRequest("cdi", device_ids=BY_UUID[:1])),
        ("GPU-CD", BY_UUID, GpuRequest("cdi", device_ids=BY_UUID[1:])),
        ("0:1", MIG, GpuRequest("cdi", device_ids=("nvidia.com/gpu=0:1",))),
        ("2", MIG, GpuRequest("cdi", device_ids=("nvidia.com/gpu=0:0", "nvidia.com/gpu=0:1"))),
        ("all", ("amd.com/gpu=0",), GpuRequest("nvidia", count=-1)),
    ],
)
def test_nvidia_gpus_are_asked_for_by_runtime_or_by_cdi_name(
    gpus: str, cdi: tuple[str, ...], request_made: GpuRequest
) -> None:
    node = Node("10.0.0.1", "eth0", 2, cdi)
    assert head_spec(config(accelerator="nvidia", gpus=gpus), node, CONTENTS).gpus == request_made


@pytest.mark.parametrize(("gpus", "cdi"), [("0,7", CDI), ("5", CDI), ("0,1", BY_UUID), ("GPU-ab", CDI), ("0:2", MIG)])
def test_a_gpu_that_the_daemon_does_not_list_is_an_error_with_the_list(gpus: str, cdi: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="the daemon does not list such GPUs among its CDI devices") as caught:
        head_spec(config(accelerator="nvidia", gpus=gpus), Node("10.0.0.1", "eth0", 2, cdi), CONTENTS)
    assert (caught.value.details or "").splitlines() == list(cdi)


@pytest.mark.parametrize(
    ("gpus", "cards"), [("all", AMD[1:4]), ("2", AMD[1:3]), ("2,0", ("/dev/dri/renderD131", "/dev/dri/renderD129"))]
)
def test_amd_gpus_are_counted_among_amds_own_cards(gpus: str, cards: tuple[str, ...]) -> None:
    spec = head_spec(config(accelerator="amd", gpus=gpus), replace(NODE, gpu_devices=AMD), CONTENTS)
    assert (spec.devices, spec.group_add) == (("/dev/kfd", *cards), ("109",))


@pytest.mark.parametrize(("gpus", "words"), [("3,0", "no such GPU"), ("GPU-ab", "only by number")])
def test_an_amd_gpu_that_is_not_there_is_an_error_with_those_that_are(gpus: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        head_spec(config(accelerator="amd", gpus=gpus), replace(NODE, gpu_devices=AMD), CONTENTS)
    assert caught.value.hint == "Name them by their numbers there: 0,1,2"


FILES = ("/dev/nvidia-caps", "/dev/nvidia-uvm", "/dev/nvidia0", "/dev/nvidia1", "/dev/nvidia10", "/dev/nvidiactl")


@pytest.mark.parametrize(
    ("gpus", "cards"),
    [
        ("all", ("/dev/nvidia0", "/dev/nvidia1", "/dev/nvidia10")),
        ("2", ("/dev/nvidia0", "/dev/nvidia1")),
        ("1,10", ("/dev/nvidia1", "/dev/nvidia10")),
    ],
)
def test_where_a_host_gives_gpus_by_files_alone_a_node_gets_those_and_what_controls_them(
    gpus: str, cards: tuple[str, ...]
) -> None:
    spec = head_spec(config(accelerator="nvidia", gpus=gpus), Node("10.0.0.1", "eth0", 2, FILES), CONTENTS)
    assert spec.gpus is None
    assert spec.devices == ("/dev/nvidiactl", "/dev/nvidia-uvm", *cards)


def test_a_gpu_that_is_given_as_a_file_has_no_other_name_than_its_number() -> None:
    node = Node("10.0.0.1", "eth0", 1, FILES)
    with pytest.raises(ConfigError, match="--gpus GPU-5a: without NVIDIA's runtime or CDI") as caught:
        head_spec(config(accelerator="nvidia", gpus="device=GPU-5a"), node, CONTENTS)
    assert caught.value.hint == "Name them by their numbers there: 0,1,10"


def test_limits_left_to_the_daemon_are_not_set() -> None:
    assert head_spec(config(memlock=None, nofile=None), NODE, CONTENTS).ulimits == {}
    assert head_spec(config(memlock=-1, nofile=2048), NODE, CONTENTS).ulimits == {"memlock": -1, "nofile": 2048}


def test_labels_tell_what_changed_and_never_a_secret() -> None:
    before = full_config()
    marks = CONTENTS.secrets.marks("engine")
    carried = container_labels(before, "engine", marks)
    assert not [secret for secret in (RAY, HF, KEY, SCRAPE) if secret in json.dumps(carried)]
    assert changed_fields(carried, before, "engine", marks) == []
    after = before.model_copy(update={"max_model_len": 8192, "gpus": Gpus(1)})
    assert changed_fields(carried, after, "engine", marks) == ["max_model_len: 4096 → 8192", "gpus: all → 1"]
    assert carried[CONFIG] != container_labels(after, "engine", marks)[CONFIG]
    other = replace(CONTENTS.secrets, ray_token=SecretStr("another-token-of-ray")).marks("engine")
    assert changed_fields(carried, before, "engine", other) == ["ray_token: not the one it was started with"]


def test_a_longer_wait_or_a_new_token_is_no_change_of_the_cluster() -> None:
    before = full_config()
    after = before.model_copy(update={"join_timeout": 5.0, "hf_token": None})
    assert changed_fields(container_labels(before, "head", {}), after, "head", {}) == []


def test_settings_of_the_engine_are_no_change_of_a_node() -> None:
    before = full_config()
    after = before.model_copy(update={"max_model_len": 1, "model": "other/model"})
    assert changed_fields(container_labels(before, "worker", {}), after, "worker", {}) == []


def test_labels_of_an_unknown_shape_count_as_another_configuration() -> None:
    assert changed_fields({CONFIG: "not json"}, full_config(), "head", {})


def test_both_runtimes_have_the_same_plan_but_for_what_nodes_run_in() -> None:
    docker = full_config().model_copy(update={"runtime": "docker"})
    native = full_config().model_copy(update={"runtime": "native", "image": "/opt/venv/bin/python"})
    for make in (head_spec, worker_spec, engine_spec):
        planned, also_planned = make(docker, NODE, CONTENTS), make(native, NODE, CONTENTS)
        argv = tuple(word for word in planned.argv if word != "--own-memory")  # /dev/shm is the whole machine's there
        assert replace(also_planned, image=planned.image, labels=planned.labels) == replace(planned, argv=argv)
        changed = changed_fields(
            also_planned.labels, docker, planned.labels[ROLE], CONTENTS.secrets.marks(planned.labels[ROLE])
        )
        assert changed == ["image: /opt/venv/bin/python → registry/vllm@sha256:abc"]


@pytest.mark.parametrize(
    ("accelerator", "gpus", "variables"),
    [
        ("nvidia", Gpus(2, ("1", "3")), ["CUDA_DEVICE_ORDER=PCI_BUS_ID", "CUDA_VISIBLE_DEVICES=1,3"]),
        ("amd", Gpus(2, ("1", "3")), ["HIP_VISIBLE_DEVICES=1,3"]),
        ("nvidia", Gpus(2), []),
    ],
)
def test_a_line_for_a_process_leaves_it_the_gpus_that_are_named(
    accelerator: str, gpus: Gpus, variables: list[str]
) -> None:
    native = full_config().model_copy(
        update={"runtime": "native", "image": "/v/bin/python", "accelerator": accelerator, "gpus": gpus}
    )
    for make in (head_spec, engine_spec):
        said = process_line(make(native, NODE, CONTENTS), {})
        assert re.findall(r"^  (\w+(?:_VISIBLE_DEVICES|_DEVICE_ORDER)=\S+)", said, re.MULTILINE) == variables


def test_in_a_network_of_its_own_a_node_has_its_address_and_the_engine_shares_the_heads() -> None:
    config = full_config().model_copy(update={"network": "lab"})
    head, engine = head_spec(config, NODE, CONTENTS), engine_spec(config, NODE, CONTENTS)
    assert (head.network, head.ip) == ("lab", NODE.ip)
    assert (engine.network, engine.ip) == ("container:vllmray-head", None)
    assert "--network lab \\\n  --ip 10.0.0.1 \\" in line(head)
    probe = probe_spec(config, (), "{}")
    assert (probe.network, probe.ip) == ("lab", "10.0.0.1")


def test_the_plugin_of_the_cpu_platform_comes_with_the_node_and_not_with_the_image() -> None:
    cpu = head_spec(config(), NODE, contents())
    paths = [file.path for file in cpu.files]
    assert f"{PAYLOAD}/cpu/platform.py" in paths
    (about,) = [file for file in cpu.files if file.path.endswith("/entry_points.txt")]
    assert b"vllmray_cpu_slots = vllmray.payload.cpu.platform:register" in about.content
    assert cpu.env["PYTHONPATH"] == SITE
    nvidia = [file.path for file in head_spec(config(accelerator="nvidia"), NODE, contents()).files]
    assert not [path for path in nvidia if "dist-info" in path]
    assert f"{PAYLOAD}/journal.py" in nvidia


def test_what_the_programs_import_of_this_package_comes_with_them() -> None:
    """In the container there is nothing of it but what is put there; so each import of ours must find its file."""
    engine = engine_spec(config(accelerator="nvidia"), NODE, contents())
    files = {file.path: file.content.decode() for file in engine.files if file.path.endswith(".py")}
    ours = re.compile(r"^ *from (vllmray\S*) import", re.MULTILINE)
    imported = {name for text in files.values() for name in ours.findall(text)}
    assert len(imported) >= 5
    for name in imported:
        assert f"{SITE}/{name.replace('.', '/')}.py" in files


@pytest.mark.parametrize(
    ("ip", "network", "moved"), [("127.0.0.2", "host", True), ("10.0.0.2", "host", False), ("127.0.0.2", "lab", False)]
)
def test_a_worker_at_a_loopback_address_has_ports_of_its_own(ip: str, network: str, moved: bool) -> None:
    before = full_config().model_copy(
        update={"node_ip": ip, "network": network, "ray_ports": RayPorts(metrics_export=7000)}
    )
    ports = before.with_loopback_ports().ray_ports
    assert ports.gcs == before.ray_ports.gcs
    assert ports.metrics_export == 7000
    assert (ports.node_manager != before.ray_ports.node_manager) is moved
    if moved:
        assert not set(ports.listening("worker").values()) & set(RayPorts().listening("head").values())
        assert ports.min_worker > RayPorts().max_worker


def test_neighbours_never_share_a_port() -> None:
    seen: set[int] = set()
    for place in range(1, MAX_NEIGHBOURS):
        ports = full_config().model_copy(update={"node_ip": f"127.0.0.{place}"}).with_loopback_ports().ray_ports
        own = {*ports.listening("worker").values(), *range(ports.min_worker, ports.max_worker + 1)}
        assert not own & seen
        assert max(own) < 65536
        seen |= own
