from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it has no types of its own
import pytest

from vllmray.config.cluster_file import full_address, read_cluster_file, short_name
from vllmray.config.cluster_settings import REMOTE_MODELS, cluster_file, load_cluster
from vllmray.config.file_schema import file_schema
from vllmray.config.settings import load
from vllmray.errors import ConfigError

FILE = """version = 1
share = ["image"]
[cluster]
name = "lab"
model = "org/model"
layout = "TP 2, PP 2"
vllm_args = ["--max-num-seqs", "8"]
[defaults]
gpus = 2
env = { NCCL_DEBUG = "INFO", A = "1" }
[[hosts]]
address = "gpu1"
role = "head"
node_ip = "10.0.0.1"
[[hosts]]
address = "ssh://me@gpu2:2222/run/docker.sock"
gpus = "0,2"
env = ["A=2"]
model_cache = "/data/models"
"""

pytestmark = pytest.mark.usefixtures("folder")


def loaded(text: str, flags: dict[str, Any] | None = None, environ: dict[str, str] | None = None) -> Any:
    Path("vllmray.toml").write_text(text)
    return load_cluster(flags or {}, environ=environ or {})


def problems(text: str, flags: dict[str, Any] | None = None, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(text, flags, environ)
    return (caught.value.details or "").splitlines()


def test_each_host_has_the_settings_of_the_cluster_the_defaults_and_its_own() -> None:
    found = loaded(FILE)
    first, second = found.configs["gpu1"], found.configs["gpu2"]
    assert [(entry.name, entry.address, entry.role) for entry in found.file.hosts] == [
        ("gpu1", "ssh://gpu1", "head"),
        ("gpu2", "ssh://me@gpu2:2222/run/docker.sock", "worker"),
    ]
    assert found.file.share == {"image"}
    for config in (first, second):
        assert (config.cluster, config.model, config.vllm_args) == ("lab", "org/model", ("--max-num-seqs", "8"))
        assert (config.tensor_parallel_size, config.pipeline_parallel_size) == (2, 2)
    assert (first.node_ip, first.gpus.count, first.gpus.ids) == ("10.0.0.1", 2, ())
    assert (second.node_ip, second.gpus.ids) == (None, ("0", "2"))
    assert first.environment == {"NCCL_DEBUG": "INFO", "A": "1"}
    assert second.environment == {"NCCL_DEBUG": "INFO", "A": "2"}


def test_a_folder_of_models_is_the_hosts_and_never_the_desks() -> None:
    found = loaded(FILE)
    assert found.configs["gpu1"].model_cache_dir == REMOTE_MODELS
    assert found.configs["gpu2"].model_cache_dir == "/data/models"
    relative = FILE.replace("/data/models", "models")
    assert problems(relative) == [
        "model_cache in vllmray.toml:19:1: a relative path; give the absolute path of a folder on the hosts"
    ]


def test_what_is_typed_wins_over_the_file_for_all_hosts() -> None:
    found = loaded(FILE, {"max_model_len": "2048"}, {"MODEL_NAME": "other/model", "VLLMRAY_GPUS": "1"})
    for config in found.configs.values():
        assert (config.max_model_len, config.model, config.gpus.count) == (2048, "other/model", 1)


def test_what_differs_from_host_to_host_can_not_be_typed_for_all() -> None:
    assert problems(FILE, {"node_ip": "10.0.0.9"}, {"RAY_HEAD_IP": "10.0.0.1"}) == [
        "--node-ip: differs from host to host; give node_ip under its [[hosts]]",
        "RAY_HEAD_IP in the environment: differs from host to host; remove it: the head is the host with "
        'role = "head" in the cluster file',
    ]


def test_every_problem_is_told_at_once_with_its_line_and_column() -> None:
    text = """version = 2
share = ["everything"]
max_modle_len = 5
[cluster]
nam = "x"
hf_token = "secret"
node_ip = "10.0.0.1"
layout = "wide"
executor = "magic"
port = 99999999
[defaults]
model = "x"
gpu = 2
[[hosts]]
address = "gpu1"
role = "boss"
  shm_size = "much"
[[hosts]]
role = "head"
[[hosts]]
address = "gpu1"
[[hosts]]
address = "a b"
role = "head"
"""
    lines = problems(text)
    assert {line.split(": ")[0] for line in lines} == {
        "version in vllmray.toml:1:1",
        "share in vllmray.toml:2:1",
        "max_modle_len in vllmray.toml:3:1",
        "nam in vllmray.toml:5:1",
        "hf_token in vllmray.toml:6:1",
        "node_ip in vllmray.toml:7:1",
        "layout in vllmray.toml:8:1",
        "executor in vllmray.toml:9:1",
        "port in vllmray.toml:10:1",
        "model in vllmray.toml:12:1",
        "gpu in vllmray.toml:13:1",
        "role in vllmray.toml:16:1",
        "shm_size in vllmray.toml:17:3",
        "hosts in vllmray.toml:18:1",
        "hosts in vllmray.toml:20:1",
        "address in vllmray.toml:23:1",
        "role in vllmray.toml:24:1",
    }
    told = "\n".join(lines)
    for fix in ("did you mean max_model_len?", "did you mean name?", "did you mean gpus?", "put it into [cluster]"):
        assert fix in told
    assert "secret" not in told.replace("a secret in a file", "")


def test_a_problem_of_the_cluster_is_told_once_and_not_for_each_host() -> None:
    assert problems(FILE.replace('model = "org/model"', 'port = "x"')) == [
        "port in vllmray.toml:5:1: not a whole number; give digits only"
    ]


def test_the_first_host_has_the_head_where_none_is_named() -> None:
    found = loaded('[[hosts]]\naddress = "b"\n[[hosts]]\naddress = "a"\n')
    assert [(entry.name, entry.role) for entry in found.file.hosts] == [("b", "head"), ("a", "worker")]
    assert found.file.share == {"image", "model"}


def test_a_file_of_settings_alone_is_read_as_before_with_or_without_tables() -> None:
    for text in ('model = "m"\ngpus = 3\n', '[cluster]\nmodel = "m"\n[defaults]\ngpus = 3\n'):
        Path("vllmray.toml").write_text(text)
        config = load({}, environ={}).config
        assert (config.model, config.gpus.count) == ("m", 3)
        assert cluster_file(environ={}).hosts == ()


def test_a_command_about_one_host_has_the_clusters_settings_and_the_defaults() -> None:
    Path("vllmray.toml").write_text(FILE)
    config = load({}, environ={}).config
    assert (config.cluster, config.model, config.gpus.count, config.node_ip) == ("lab", "org/model", 2, None)


def test_a_path_that_is_relative_for_all_hosts_is_told_once() -> None:
    hosts = '[[hosts]]\naddress = "a"\n[[hosts]]\naddress = "b"\n'
    assert len(problems(f'[defaults]\nmodel_cache = "~/models"\n{hosts}')) == 1
    here = loaded('[[hosts]]\naddress = "unix:///var/run/docker.sock"\n').configs["this-host"]
    assert here.model_cache_dir == str(Path("models").absolute())


def test_variables_that_are_typed_take_the_place_of_the_files() -> None:
    for flags, environ in (({"env": ("A=typed",)}, {}), ({}, {"VLLMRAY_ENV": "A=typed"})):
        assert loaded(FILE, flags, environ).configs["gpu1"].environment == {"A": "typed"}
        Path("vllmray.toml").write_text('env = ["A=file", "B=file"]\n')
        assert load(flags, environ=environ).config.environment == {"A": "typed"}
    text = '[defaults]\nenv = { A = true, B = 1 }\n[[hosts]]\naddress = "a"\nenv = "B=2"\n'
    assert loaded(text).configs["a"].environment == {"A": "true", "B": "2"}


def test_a_command_about_a_host_of_the_file_has_that_hosts_own_settings() -> None:
    Path("vllmray.toml").write_text(FILE)
    assert load({}, environ={}, host="ssh://me@gpu2:2222/run/docker.sock").config.model_cache_dir == "/data/models"
    assert load({}, environ={"VLLMRAY_HOST": "gpu1"}).config.node_ip == "10.0.0.1"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            '[cluster]\nlayout = "auto"\ntensor_parallel_size = 2\n',
            "layout in vllmray.toml:2:1: given beside a parallel",
        ),
        ('[cluster]\nname = "a"\ncluster = "b"\n', "name in vllmray.toml:2:1: given as cluster too"),
        ("[defaults]\nenv = { A = [1] }\n", "env in vllmray.toml:2:1: A is not text"),
        ("[cluster]\nray_ports.gcss = 1\n", "vllmray.toml:2:1"),
        (f"a = {'[' * 330}{']' * 330}\n", "a in vllmray.toml:1:1: no such setting"),
    ],
)
def test_further_problems(text: str, words: str) -> None:
    assert words in "\n".join(problems(text + '[[hosts]]\naddress = "gpu1"\n'))


def test_share_may_stand_in_the_clusters_table() -> None:
    assert loaded('[cluster]\nshare = ["model"]\n[[hosts]]\naddress = "a"\n').file.share == {"model"}


def test_native_nodes_are_not_started_from_another_host() -> None:
    assert problems('[[hosts]]\naddress = "a"\nruntime = "native"\n') == [
        "runtime in vllmray.toml:3:1: native nodes are not started from another host; start them there, with --role"
    ]


@pytest.mark.parametrize(
    ("text", "address", "name"),
    [
        ("gpu1", "ssh://gpu1", "gpu1"),
        ("me@gpu1", "ssh://me@gpu1", "gpu1"),
        ("me@10.0.0.2:2222", "ssh://me@10.0.0.2:2222", "10.0.0.2"),
        ("ssh://me@[fd00::2]:22/d.sock", "ssh://me@[fd00::2]:22/d.sock", "[fd00::2]:22"),
        ("tcp://10.0.0.2:2376", "tcp://10.0.0.2:2376", "10.0.0.2"),
        ("unix:///var/run/docker.sock", "unix:///var/run/docker.sock", "this-host"),
    ],
)
def test_an_alias_is_an_address_by_ssh(text: str, address: str, name: str) -> None:
    assert full_address(text) == address
    assert short_name(address) == name


@pytest.mark.parametrize(
    "text",
    [
        "a b",
        "-oProxyCommand=x",
        "http://x",
        "gpu1/../x",
        "",
        "ssh://",
        "ssh://u@",
        "ssh://a b",
        "ssh://gpu1;x",
        "ssh://-x",
    ],
)
def test_what_is_no_address_is_none(text: str) -> None:
    assert full_address(text) is None


EXAMPLES = Path(__file__).parents[3] / "examples"


def test_editors_accept_what_is_read_and_refuse_what_is_not() -> None:
    check = jsonschema.Draft202012Validator(file_schema())
    for text in (FILE, (EXAMPLES / "cluster.toml").read_text(), (EXAMPLES / "vllmray.toml").read_text()):
        check.validate(tomllib.loads(text))
    for change in ("gpu = 2\n", 'hf_token = "x"\n', 'head_ip = "10.0.0.1"\n', 'role = "boss"\n'):
        assert list(check.iter_errors(tomllib.loads(f'[[hosts]]\naddress = "a"\n{change}'))), change


def test_the_examples_are_read_without_a_problem() -> None:
    file, found = read_cluster_file(EXAMPLES / "cluster.toml")
    assert found == []
    assert [entry.name for entry in file.hosts] == ["gpu1", "gpu2", "gpu3", "gpu4"]
    _, found = read_cluster_file(EXAMPLES / "vllmray.toml")
    assert found == []
