"""Whole containers, as the docker run lines that would make them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.support import NODE, config
from vllmray.cluster.labels import CONFIG, CONFIG_HASH, changed_fields, container_labels
from vllmray.cluster.plan import LAUNCH, WATCH, Node, Scripts, engine_spec, head_spec, worker_spec
from vllmray.config.models import ClusterConfig
from vllmray.config.values import Gpus
from vllmray.hosts.base import ContainerSpec, GpuRequest
from vllmray.hosts.run_line import run_line

SCRIPTS = Scripts(watch=b"watch", launch=b"launch")
SOURCES = {WATCH: "/src/watch.py", LAUNCH: "/src/launch.py"}
DATA = Path(__file__).parents[1] / "data" / "lines"


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
        ("head", head_spec(full_config(), NODE, SCRIPTS)),
        ("worker", worker_spec(full_config(), Node("10.0.0.2", "ens5", 2), SCRIPTS)),
        ("engine", engine_spec(full_config(), NODE, SCRIPTS)),
        (
            "engine-cpu",
            engine_spec(config(model="/models/smol", model_cache_dir="/m", head_ip="10.0.0.1"), NODE, SCRIPTS),
        ),
        ("head-amd", head_spec(config(accelerator="amd", gpus="0,1", cluster="lab"), NODE, SCRIPTS)),
        (
            "head-cdi",
            head_spec(config(accelerator="nvidia"), Node("10.0.0.1", "eth0", 2, ("nvidia.com/gpu=0",)), SCRIPTS),
        ),
    ],
)
def test_the_line_of(name: str, spec: ContainerSpec) -> None:
    """tests/unit/data/lines holds the lines; read a difference there as a change of what users get."""
    assert line(spec) == (DATA / f"{name}.txt").read_text().rstrip("\n")


def test_a_secret_is_a_file_of_the_containers_user_and_nowhere_else() -> None:
    for spec in (head_spec(full_config(), NODE, SCRIPTS), engine_spec(full_config(), NODE, SCRIPTS)):
        (token,) = [file for file in spec.files if file.secret]
        assert (token.content, token.mode) == (b"hf_secret", 0o600)
        assert spec.env["HF_TOKEN_PATH"] == token.path
        assert "hf_secret" not in line(spec)
        assert "hf_secret" not in repr(spec)
        assert "hf_secret" not in json.dumps([dict(spec.env), dict(spec.labels), list(spec.argv)])


def test_without_a_token_there_is_no_file_for_one() -> None:
    spec = head_spec(config(), NODE, SCRIPTS)
    assert not [file for file in spec.files if file.secret]
    assert "HF_TOKEN_PATH" not in spec.env


def test_the_users_environment_wins_over_ours() -> None:
    spec = head_spec(config(env=("GLOO_SOCKET_IFNAME=ib0",)), NODE, SCRIPTS)
    assert spec.env["GLOO_SOCKET_IFNAME"] == "ib0"


@pytest.mark.parametrize(
    ("gpus", "cdi", "request_made"),
    [
        ("all", (), GpuRequest("nvidia", count=-1)),
        ("2", (), GpuRequest("nvidia", count=2)),
        ("0,3", (), GpuRequest("nvidia", device_ids=("0", "3"))),
        ("all", ("nvidia.com/gpu=all",), GpuRequest("cdi", device_ids=("nvidia.com/gpu=all",))),
        ("2", ("nvidia.com/gpu=0",), GpuRequest("cdi", device_ids=("nvidia.com/gpu=0", "nvidia.com/gpu=1"))),
        ("0,3", ("nvidia.com/gpu=0",), GpuRequest("cdi", device_ids=("nvidia.com/gpu=0", "nvidia.com/gpu=3"))),
        ("all", ("amd.com/gpu=0",), GpuRequest("nvidia", count=-1)),
    ],
)
def test_nvidia_gpus_are_asked_for_by_runtime_or_by_cdi_name(
    gpus: str, cdi: tuple[str, ...], request_made: GpuRequest
) -> None:
    node = Node("10.0.0.1", "eth0", 2, cdi)
    assert head_spec(config(accelerator="nvidia", gpus=gpus), node, SCRIPTS).gpus == request_made


def test_limits_left_to_the_daemon_are_not_set() -> None:
    assert head_spec(config(memlock=None, nofile=None), NODE, SCRIPTS).ulimits == {}
    assert head_spec(config(memlock=-1, nofile=2048), NODE, SCRIPTS).ulimits == {"memlock": -1, "nofile": 2048}


def test_labels_tell_what_changed_and_never_a_secret() -> None:
    before = full_config()
    carried = container_labels(before, "engine")
    assert "hf_secret" not in json.dumps(carried)
    assert changed_fields(carried, before, "engine") == []
    after = before.model_copy(update={"max_model_len": 8192, "gpus": Gpus(1)})
    assert changed_fields(carried, after, "engine") == ["max_model_len: 4096 → 8192", "gpus: all → 1"]
    assert carried[CONFIG_HASH] != container_labels(after, "engine")[CONFIG_HASH]


def test_a_longer_wait_or_a_new_token_is_no_change_of_the_cluster() -> None:
    before = full_config()
    after = before.model_copy(update={"join_timeout": 5.0, "hf_token": None})
    assert changed_fields(container_labels(before, "head"), after, "head") == []


def test_settings_of_the_engine_are_no_change_of_a_node() -> None:
    before = full_config()
    after = before.model_copy(update={"max_model_len": 1, "model": "other/model"})
    assert changed_fields(container_labels(before, "worker"), after, "worker") == []


def test_labels_of_an_unknown_shape_count_as_another_configuration() -> None:
    assert changed_fields({CONFIG: "not json"}, full_config(), "head")
