from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllmray.config.cluster_settings import load_cluster
from vllmray.config.compose.folders import Folder, draft_of
from vllmray.config.render import render
from vllmray.errors import ConfigError

HEAD_ENV = """HF_TOKEN=hf_a_secret
MODEL_NAME=meta-llama/Llama-3.1-70B-Instruct
MODEL_CACHE_DIR=./models
VLLM_PORT=8000
MAX_MODEL_LEN=4096
TENSOR_PARALLEL_SIZE=2
PIPELINE_PARALLEL_SIZE=2
RAY_HEAD_IP=10.0.0.1
VLLM_STARTUP_DELAY=10
NCCL_DEBUG=INFO
FOO=1
"""
HEAD = """
x-common: &common
  image: vllm/vllm-openai:v0.10.0
  network_mode: host
  ipc: host
services:
  ray-head:
    <<: *common
    shm_size: 16gb
    environment:
      - HF_TOKEN=${HF_TOKEN}
      - NCCL_SOCKET_IFNAME=eth0
    volumes:
      - ${MODEL_CACHE_DIR:-./models}:/root/.cache/huggingface
      - /data:/data:ro
    deploy:
      resources:
        reservations:
          devices:
            - driver: nvidia
              device_ids: ["0", "2"]
              capabilities: [gpu]
    entrypoint: ["/bin/bash", "-c"]
    command:
      - |
        ray start --head --port=6379 --node-ip-address=${RAY_HEAD_IP} &&
        sleep ${VLLM_STARTUP_DELAY} &&
        python -m vllm.entrypoints.openai.api_server --model ${MODEL_NAME} \\
          --tensor-parallel-size ${TENSOR_PARALLEL_SIZE} --pipeline-parallel-size ${PIPELINE_PARALLEL_SIZE} \\
          --distributed-executor-backend ray --gpu-memory-utilization 0.9 --host 0.0.0.0 \\
          --port ${VLLM_PORT} --max-model-len ${MAX_MODEL_LEN}
  watcher:
    image: prom/prometheus
"""
WORKER_ENV = "RAY_HEAD_IP=10.0.0.1\nMODEL_NAME=meta-llama/Llama-3.1-70B-Instruct\nMODEL_CACHE_DIR=/models\n"
WORKER = """
services:
  ray-worker:
    image: vllm/vllm-openai:v0.10.0
    command: bash -c "ray start --address=${RAY_HEAD_IP}:6379 --node-ip-address 10.0.0.2 --block"
    volumes: ["${MODEL_CACHE_DIR}:/root/.cache/huggingface"]
    deploy: {resources: {reservations: {devices: [{driver: nvidia, count: 2, capabilities: [gpu]}]}}}
"""


def folder(name: str, env: str, compose: str | None) -> Folder:
    return Folder(name, {".env": env} | ({"docker-compose.yml": compose} if compose else {}))


HEAD_FOLDER, WORKER_FOLDER = folder("node1", HEAD_ENV, HEAD), folder("node2", WORKER_ENV, WORKER)


def drafted(*folders: Folder, hosts: tuple[str, ...] = ()) -> tuple[dict[str, Any], list[str]]:
    draft, notices = draft_of(folders, hosts)
    return tomllib.loads(render(draft)), notices


def test_two_folders_become_one_file() -> None:
    found, _ = drafted(HEAD_FOLDER, WORKER_FOLDER)
    assert found == {
        "version": 1,
        "share": ["image", "model"],
        "cluster": {
            "name": "vllmray",
            "image": "vllm/vllm-openai:v0.10.0",
            "model": "meta-llama/Llama-3.1-70B-Instruct",
            "tensor_parallel_size": 2,
            "pipeline_parallel_size": 2,
            "port": 8000,
            "max_model_len": 4096,
            "vllm_args": ["--gpu-memory-utilization", "0.9"],
        },
        "hosts": [
            {
                "address": "10.0.0.1",
                "role": "head",
                "gpus": "0,2",
                "node_ip": "10.0.0.1",
                "volumes": ["/data:/data"],
                "shm_size": "16gb",
                "env": {"NCCL_SOCKET_IFNAME": "eth0", "NCCL_DEBUG": "INFO"},
            },
            {
                "address": "10.0.0.2",
                "role": "worker",
                "gpus": 2,
                "node_ip": "10.0.0.2",
                "model_cache": "/models",
            },
        ],
    }


@pytest.mark.usefixtures("folder")
def test_the_file_is_one_that_up_reads() -> None:
    draft, _ = draft_of([HEAD_FOLDER, WORKER_FOLDER], ["gpu1", "gpu2"])
    Path("vllmray.toml").write_text(render(draft))
    configs = load_cluster({}, environ={}).configs
    assert configs["gpu1"].gpus.ids == ("0", "2")
    assert configs["gpu2"].model_cache_dir == "/models"
    assert configs["gpu2"].world_size == 4


def test_what_has_no_place_is_named_with_the_reason_and_no_secret_is_shown() -> None:
    found, notices = drafted(HEAD_FOLDER, WORKER_FOLDER)
    told = "\n".join(notices)
    for words in (
        "node1: sleep 10: not needed",
        "node1: --distributed-executor-backend: the executor is Ray",
        "node1: --host: the endpoint listens on the head's address",
        "node1: volume ./models: a path of its own folder",
        "node1: HF_TOKEN: ",
        "node1: network_mode: ",
        "node1: ipc: ",
        "node1: VLLM_STARTUP_DELAY: not needed",
        "node1: FOO in .env: not read",
        "node1: service watcher: it runs neither Ray nor vLLM",
    ):
        assert words in told
    assert "hf_a_secret" not in told + str(found)


def test_folders_of_a_setup_without_compose_files_are_read_too() -> None:
    head = folder("a", HEAD_ENV, None)
    with pytest.raises(ConfigError) as caught:
        drafted(head, folder("b", WORKER_ENV, None), hosts=("gpu1", "gpu2"))
    assert "no folder starts a head" in str(caught.value.details)


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        ((HEAD_FOLDER, folder("n2", HEAD_ENV, HEAD)), "2 folders start a head (node1, n2)"),
        ((folder("n2", WORKER_ENV, WORKER),), "no folder starts a head"),
        ((HEAD_FOLDER, folder("n2", WORKER_ENV.replace("Llama-3.1-70B", "Other"), WORKER)), "model: differs between"),
        ((HEAD_FOLDER, folder("n2", WORKER_ENV, WORKER.replace("v0.10.0", "v0.9.0"))), "image: differs between"),
        (
            (HEAD_FOLDER, folder("n2", WORKER_ENV, WORKER.replace("--node-ip-address 10.0.0.2", ""))),
            "n2: the host's address is in none of its files",
        ),
    ],
)
def test_contradictions_are_problems(folders: tuple[Folder, ...], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        drafted(*folders)
    assert words in str(caught.value.details)


@pytest.mark.parametrize(
    ("compose", "words"),
    [
        ("services:\n  a: [\n", "can't read node1/docker-compose.yml: while parsing"),
        ("a: 1\n", "node1/docker-compose.yml has no services"),
        ("services:\n  a:\n    image: ${X\n", "node1/docker-compose.yml: "),
    ],
)
def test_a_compose_file_that_can_not_be_read_is_an_error_that_names_it(compose: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        drafted(folder("node1", "", compose))
    assert caught.value.message.startswith(words)


def test_a_server_as_a_service_of_its_own_and_vllm_serve_are_read() -> None:
    compose = """
services:
  head: {image: i, command: [ray, start, --head, --block]}
  server:
    image: i
    command: ["vllm", "serve", "org/model", "-tp", "2", "--max-num-seqs=8", "--enable-expert-parallel"]
"""
    found, notices = drafted(folder("n", "", compose), hosts=("gpu1",))
    assert found["cluster"] == {
        "name": "vllmray",
        "image": "i",
        "model": "org/model",
        "tensor_parallel_size": 2,
        "vllm_args": ["--max-num-seqs=8", "--enable-expert-parallel"],
    }
    assert notices == []


def one(service: str, env: str = "") -> tuple[dict[str, Any], list[str]]:
    """The file of one folder with one service, in YAML's flow style."""
    return drafted(folder("n", env, "services: {a: {image: i, " + service + "}}"), hosts=("gpu1",))


SERVE = 'command: "ray start --head; vllm serve m"'


def test_a_variable_that_is_not_set_is_empty_as_compose_takes_it() -> None:
    found, _ = one(
        'command: "ray start --head --node-ip-address=10.0.0.1 ${MORE}; vllm serve m ${X:-} ${Y:---max-num-seqs=4}"'
    )
    assert found["hosts"][0]["role"] == "head"
    assert found["cluster"]["vllm_args"] == ["--max-num-seqs=4"]


def test_no_value_of_a_refused_flag_and_no_step_of_a_shell_is_shown() -> None:
    _, notices = one(
        'command: "export TOKEN=s3cret; pip install s3cret; ray start --head; vllm serve m --hf-token s3cret s3cret"'
    )
    told = "\n".join(notices)
    assert "s3cret" not in told
    for words in ("--hf-token", "`pip` in the command", "1 words of the server's command"):
        assert words in told, told


def test_a_mount_stays_read_only_whatever_else_its_mode_says() -> None:
    found, _ = one(SERVE + ", volumes: ['/a:/a:ro,z', '/b:/b:z', '/c:/c:ro']")
    assert found["hosts"][0]["volumes"] == ["/a:/a", "/b:/b:rw", "/c:/c"]


def test_variables_are_each_hosts_own_unless_all_have_them_alike() -> None:
    worker = WORKER.replace("volumes:", "environment: {NCCL_SOCKET_IFNAME: ens3, NCCL_DEBUG: INFO}\n    volumes:")
    found, _ = drafted(HEAD_FOLDER, folder("node2", WORKER_ENV, worker))
    assert found["defaults"]["env"] == {"NCCL_DEBUG": "INFO"}
    assert [host["env"] for host in found["hosts"]] == [{"NCCL_SOCKET_IFNAME": "eth0"}, {"NCCL_SOCKET_IFNAME": "ens3"}]


def test_gpus_by_variable_rays_program_by_path_and_another_port_are_read() -> None:
    command = 'command: "NCCL_DEBUG=INFO /usr/local/bin/ray start --head --port 6400; vllm serve m"'
    found, _ = one(command + ', environment: {NVIDIA_VISIBLE_DEVICES: "0,2"}')
    assert found["hosts"][0]["gpus"] == "0,2"
    assert found["cluster"]["ray_ports"] == {"gcs": 6400}
    assert found["defaults"]["env"] == {"NCCL_DEBUG": "INFO"}


@pytest.mark.parametrize(
    ("service", "words"),
    [
        ("extends: {file: x.yml, service: b}", "n/docker-compose.yml: no service starts Ray or vLLM"),
        (SERVE + ", env_file: ../x.env", "n: env_file ../x.env is not in that folder"),
    ],
)
def test_what_is_in_another_file_is_an_error(service: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        one(service)
    assert caught.value.message == words


def test_what_a_cluster_file_has_not_is_named() -> None:
    text = "services: {a: {image: i, " + SERVE + ", deploy: {replicas: 2}}}\nsecrets: {x: {file: y}}\n"
    _, notices = drafted(folder("n", "", text), hosts=("gpu1",))
    assert {"n: deploy.replicas: there is nothing like it in a cluster file"} <= set(notices)
    assert "n: secrets in docker-compose.yml: there is nothing like it in a cluster file" in notices


def test_an_address_that_is_no_ipv4_and_too_many_hosts_are_problems() -> None:
    text = "services: {a: {image: i, command: 'ray start --head --node-ip-address=fd00::1'}}"
    with pytest.raises(ConfigError) as caught:
        drafted(folder("n", "", text), hosts=("gpu1", "gpu2"))
    told = str(caught.value.details)
    assert "node_ip of n: IPv6 is not supported" in told
    assert "--host: 2 for 1 folders" in told


DOCUMENTS = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["services", "image", "command", "environment", "volumes", "deploy", "env_file", "x"]),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=10,
)


@given(DOCUMENTS, st.text(max_size=30))
def test_no_document_is_a_crash(document: Any, env: str) -> None:
    import json

    compose = json.dumps({"services": {"a": document}})
    try:
        found, notices = drafted(folder("n", env, compose), hosts=("gpu1",))
    except ConfigError as error:
        refusal = error.message
    else:
        refusal = ""
        assert [host["address"] for host in found["hosts"]] == ["gpu1"]
        assert all(notice.startswith("n: ") for notice in notices)
    assert "\n" not in refusal
