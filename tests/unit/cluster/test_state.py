"""The settings of a cluster that runs, from its labels."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from tests.fake_host import FakeHost
from tests.unit.support import NODE, config, engine_spec, resolved
from vllmray.cluster.spec.containers import Node
from vllmray.cluster.spec.labels import CONFIG, container_labels
from vllmray.cluster.spec.payload import contents
from vllmray.cluster.state import head_config
from vllmray.config.models import ClusterConfig, fields_of
from vllmray.config.resolved import ResolvedConfig
from vllmray.errors import ClusterStateError
from vllmray.hosts.base import ContainerSpec
from vllmray.version import __version__

SECRETS = {
    "hf_token": "hf_secret",
    "ray_token": "the-token-of-ray",
    "api_key": "sk-secret",
    "scrape_token": "the-scrape-token",
}
# Every setting that shapes a container, none of them at its default.
RICH: dict[str, Any] = {
    "cluster": "lab",
    "model": "/models/smol",
    "model_cache_dir": "/srv/models",
    "no_api_key": True,
    "allow_routes": ("/v1/rerank", "/tokenize"),
    "ssl_certfile": "/etc/tls/cert.pem",
    "ssl_keyfile": "/etc/tls/key.pem",
    "port": 8443,
    "max_model_len": 8192,
    "tensor_parallel_size": 4,
    "pipeline_parallel_size": 3,
    "allow_tp_across_hosts": True,
    "stall_timeout": 300,
    "vllm_args": ("--served-model-name", "a b", "--max-num-seqs=8"),
    "image": "image:1",
    "network": "lab-net",
    "accelerator": "amd",
    "gpus": "device=2",
    "head_ip": "10.0.0.1",
    "node_ip": "10.0.0.1",
    "network_interface": "bond0.100",
    "shm_size": "3g",
    "object_store_memory": "300m",
    "rdma": True,
    "memlock": 65536,
    "nofile": None,
    "user": "1000:1001",
    "writable_root": True,
    "ray_metrics": True,
    "volumes": ("/a:/b", "/c:/d:rw", "/e:/f:ro"),
    "env": ("NCCL_IB_HCA=mlx5_0,mlx5_1", "A=b=c", "EMPTY="),
    "ray_ports": {"gcs": 6390, "min_worker": 20000, "max_worker": 20100},
}


def running(*configs: ClusterConfig) -> FakeHost:
    """A host with engines of these settings."""
    host = FakeHost(folders=("/models/smol", "/a", "/c", "/e"))
    host.programs["python3"] = host.programs["sleep"]
    for each in configs:
        host.create_and_start(engine_spec(each, NODE, contents()))
    return host


def test_every_setting_that_shapes_a_container_comes_back_as_it_was_and_no_secret_does() -> None:
    shaping = set(fields_of("node", "engine")) - {"tls"}  # one of two ways to a certificate
    assert set(RICH) == shaping, "a new setting: give it another value than its default in RICH"
    whole = ClusterConfig(**RICH, **SECRETS)
    assert [name for name in shaping if getattr(whole, name) == ClusterConfig.model_fields[name].default] == []
    found = head_config(running(whole), config(cluster="lab"), "docker")
    assert found == ResolvedConfig(**RICH, runtime="docker")


@pytest.mark.parametrize(
    "changes",
    [{"gpus": gpus} for gpus in ("all", "4", "0,2", "GPU-ab,GPU-cd")]
    + [{"memlock": limit} for limit in (None, -1, 0)]
    + [{"tls": "self-signed"}, {"cluster_gpus": "2x80GiB"}, {"accelerator": "nvidia", "volumes": (), "env": ()}],
)
def test_values_of_every_kind_come_back(changes: dict[str, Any]) -> None:
    settled = config(head_ip="10.0.0.1", **changes)
    found = head_config(running(settled), config(), "docker")
    assert found is not None
    for name in set(fields_of("node", "engine")):
        assert getattr(found, name) == getattr(resolved(settled), name), name


def test_what_comes_back_is_no_change_of_what_runs() -> None:
    for runtime in ("docker", "native"):
        whole = ClusterConfig(**RICH, runtime=runtime)
        found = head_config(running(whole), config(cluster="lab"), whole.runtime or "docker")
        assert found is not None
        for role in ("head", "engine"):
            assert container_labels(found, role, {}) == container_labels(whole, role, {})


def test_the_runtime_and_the_hugging_face_token_are_those_of_today() -> None:
    host = running(config(head_ip="10.0.0.1", hf_token="hf_old"))
    found = head_config(host, config(hf_token="hf_new"), "native")
    assert found is not None
    assert found.runtime == "native"
    assert found.hf_token is not None
    assert found.hf_token.get_secret_value() == "hf_new"
    assert (found.ray_token, found.api_key, found.scrape_token) == (None, None, None)


def test_what_is_said_of_it_later_is_about_the_host_that_was_typed() -> None:
    far = config(insecure_docker_tcp=True).typed_on("tcp://gpu2:2375")
    found = head_config(running(config(head_ip="10.0.0.1")), far, "docker")
    assert found is not None
    assert found.place_option == far.place_option == " --host tcp://gpu2:2375 --insecure-docker-tcp"


def test_a_host_without_the_cluster_has_no_settings_of_it() -> None:
    host = running(config(head_ip="10.0.0.1", cluster="another"))
    assert head_config(host, config(), "docker") is None


@pytest.mark.parametrize("label", ['{"nonsense": 1}', '{"port": "none"}', '{"env": ["HF_TOKEN=secret"]}'])
def test_settings_that_mean_nothing_here_are_an_error_and_none_of_them_is_shown(label: str) -> None:
    host = running()
    spec = engine_spec(config(head_ip="10.0.0.1"), Node("10.0.0.1", "eth0", 1), contents())
    host.create_and_start(replace(spec, labels={**spec.labels, CONFIG: label}))
    with pytest.raises(
        ClusterStateError, match=f"vllmray-engine was started by vllmray {re.escape(__version__)}, with settings that"
    ) as caught:
        head_config(host, config(), "docker")
    assert "--recreate" in str(caught.value.hint)
    assert "secret" not in f"{caught.value.details} {caught.value.__cause__}"


def test_labels_hold_no_secret_and_no_name_of_one() -> None:
    spec: ContainerSpec = engine_spec(ClusterConfig(**RICH, **SECRETS), NODE, contents())
    said = json.dumps(dict(spec.labels))
    assert not [secret for secret in SECRETS.values() if secret in said]
    assert not set(SECRETS) & set(json.loads(spec.labels[CONFIG]))
