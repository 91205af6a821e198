"""Where settings come from, and what is said of those that can't be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from vllmray.config.models import ClusterConfig
from vllmray.config.settings import COMPOSE_NAMES, DELAY_NOTICE, load, variables_of
from vllmray.config.values import ALL_GPUS, Gpus, as_typed
from vllmray.errors import ConfigError


def details(
    flags: dict[str, object] | None = None, environ: dict[str, str] | None = None, env_file: Path | None = None
) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(flags or {}, environ=environ or {}, env_file=env_file)
    assert caught.value.exit_code == 2
    return (caught.value.details or "").splitlines()


@pytest.mark.usefixtures("folder")
def test_one_field_through_all_layers() -> None:
    def port(flags: dict[str, object], environ: dict[str, str]) -> int:
        return load(flags, environ=environ).config.port

    assert port({}, {}) == 8000
    Path(".env").write_text("VLLM_PORT=8001\n")
    assert port({}, {}) == 8001
    Path(".env").write_text("VLLM_PORT=8001\nVLLMRAY_PORT=8002\n")
    assert port({}, {}) == 8002
    assert port({}, {"VLLM_PORT": "8003"}) == 8003
    assert port({}, {"VLLM_PORT": "8003", "VLLMRAY_PORT": "8004"}) == 8004
    assert port({"port": "8005"}, {"VLLM_PORT": "8003", "VLLMRAY_PORT": "8004"}) == 8005
    assert port({"port": None}, {"VLLMRAY_PORT": ""}) == 8002


@pytest.mark.usefixtures("folder")
def test_the_compose_setups_names_and_defaults() -> None:
    defaults = load({}, environ={}).config
    assert defaults.model == "meta-llama/Llama-3.1-70B-Instruct"
    assert (defaults.model_cache_dir, defaults.port, defaults.max_model_len) == ("./models", 8000, 4096)
    assert (defaults.tensor_parallel_size, defaults.pipeline_parallel_size) == (2, 2)
    assert defaults.hf_token is None
    Path(".env").write_text(
        "# as in the old repository\nHF_TOKEN=hf_secret\nMODEL_NAME=some/model\nMODEL_CACHE_DIR=/data\nVLLM_PORT=9000\n"
        "MAX_MODEL_LEN=8192\nTENSOR_PARALLEL_SIZE=4\nPIPELINE_PARALLEL_SIZE=1\nRAY_HEAD_IP=10.0.0.9\n"
        "VLLM_STARTUP_DELAY=10\nSOMETHING_ELSE=ignored\n"
    )
    loaded = load({}, environ={})
    config = loaded.config
    assert config.hf_token is not None
    assert config.hf_token.get_secret_value() == "hf_secret"
    assert "hf_secret" not in repr(config)
    assert (config.model, config.model_cache_dir, config.port) == ("some/model", "/data", 9000)
    assert (config.max_model_len, config.world_size, config.head_ip) == (8192, 4, "10.0.0.9")
    assert loaded.notices == (DELAY_NOTICE,)


def test_every_name_of_the_compose_setup_is_a_field() -> None:
    assert set(COMPOSE_NAMES) <= set(ClusterConfig.model_fields)
    assert variables_of("model") == ("VLLMRAY_MODEL", "MODEL_NAME")
    assert variables_of("shm_size") == ("VLLMRAY_SHM_SIZE",)


def test_all_problems_are_listed_at_once_each_with_its_origin_and_fix(folder: Path) -> None:
    env_file = folder / "head.env"
    env_file.write_text("VLLM_PORT=0\nVLLMRAY_SHM_SIZE=lots\n")
    lines = details(
        {
            "gpus": "none",
            "model": "./here",
            "ray_ports": {"gcs": "10005", "nonsense": "1"},
            "vllm_args": ("--tensor-parallel-size", "3", "--max_model_len=5"),
        },
        {"TENSOR_PARALLEL_SIZE": "two", "RAY_HEAD_IP": "fe80::1", "VLLMRAY_MEMLOK": "1"},
        env_file,
    )
    assert lines == [
        "VLLMRAY_MEMLOK in the environment: no such setting; did you mean VLLMRAY_MEMLOCK?",
        "--model: a relative folder; give an absolute path, every host looks for it there",
        f"VLLM_PORT in {env_file}: too small; the least is 1",
        "TENSOR_PARALLEL_SIZE in the environment: not a whole number; give digits only",
        "--: --tensor-parallel-size is set by vllmray itself; use vllmray's --tensor-parallel-size instead",
        "--: --max_model_len is set by vllmray itself; use vllmray's --max-model-len instead",
        "--gpus: write all, a count like 2, or ids like 0,2 or device=2",
        "RAY_HEAD_IP in the environment: IPv6 is not supported by vLLM over Ray; use the host's IPv4 address",
        f"VLLMRAY_SHM_SIZE in {env_file}: not a size; write it like 16g or 512m",
        "nonsense in --ray-port: no such port; `vllmray up --help` lists them",
    ]


@pytest.mark.usefixtures("folder")
def test_a_secret_never_shows_in_a_problem() -> None:
    assert "hf_very_secret" not in "\n".join(details({"port": "x"}, {"HF_TOKEN": "hf_very_secret"}))


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (
            {"object_store_memory": "32g"},
            "--object-store-memory: larger than shm_size, which holds it; lower this or raise that",
        ),
        ({"port": "6379"}, "ray_ports: port and gcs are both 6379; choose another for one of them"),
        ({"port": "10500"}, "ray_ports: port 10500 is inside Ray's worker ports 10002-10999; move one of them"),
        ({"ray_ports": {"min_worker": "12000"}}, "--ray-port: ray_ports; min_worker must be below max_worker"),
        ({"volumes": ["data:/data"]}, "--volume: 'data:/data' is not /source:/target or /source:/target:ro"),
        ({"env": ["NOVALUE"]}, "--env: 'NOVALUE' is not NAME=VALUE"),
        (
            {"cluster": "My Cluster"},
            "--cluster: has characters that can't be used; it must match ^[a-z0-9][a-z0-9-]{0,40}$",
        ),
        ({"accelerator": "tpu"}, "--accelerator: not one of the choices; use 'nvidia', 'amd' or 'cpu'"),
        ({"head_ip": "head.local"}, "--head-ip: not an IP address; write it like 10.0.0.1 (a host name will not do)"),
        ({"head_ip": "0.0.0.0"}, "--head-ip: not the address of a host; write it like 10.0.0.1"),
        ({"join_timeout": "soon"}, "--join-timeout: not a number; give seconds, such as 600"),
        (
            {"vllm_args": ("meta/other",)},
            "--: 'meta/other' is not a flag of vLLM; name the model with vllmray's --model",
        ),
        (
            {"vllm_args": ("--max-model", "5")},
            "--: --max-model is set by vllmray itself; use vllmray's --max-model-len instead",
        ),
        ({"vllm_args": ("-tp", "5")}, "--: -tp is set by vllmray itself; use vllmray's --tensor-parallel-size instead"),
    ],
)
def test_what_is_said_of(flags: dict[str, object], line: str) -> None:
    assert line in details(flags)


@pytest.mark.usefixtures("folder")
def test_flags_of_vllm_that_are_not_ours_pass() -> None:
    args = ("--max-num-seqs", "8", "--enforce-eager", "--served-model-name=x", "-O2")
    assert load({"vllm_args": args}, environ={}).config.vllm_args == args


def test_an_env_file_that_is_named_must_be_there(folder: Path) -> None:
    with pytest.raises(ConfigError, match="can't read"):
        load({}, environ={}, env_file=folder / "missing.env")
    binary = folder / "binary.env"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="can't read"):
        load({}, environ={}, env_file=binary)


@pytest.mark.usefixtures("folder")
def test_values_of_several_layers_meet_port_by_port() -> None:
    config = load({"ray_ports": {"gcs": "6390"}}, environ={"VLLMRAY_RAY_PORT_DASHBOARD": "8300"}).config
    assert (config.ray_ports.gcs, config.ray_ports.dashboard, config.ray_ports.node_manager) == (6390, 8300, 6380)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        ("all", ALL_GPUS),
        ("4", Gpus(4)),
        ("0,2", Gpus(2, ("0", "2"))),
        ("device=2", Gpus(1, ("2",))),
        ("GPU-ab,GPU-cd", Gpus(2, ("GPU-ab", "GPU-cd"))),
    ],
)
def test_gpus_are_all_a_count_or_ids(text: str, gpus: Gpus) -> None:
    assert load({"gpus": text}, environ={}).config.gpus == gpus
    assert load({"gpus": str(gpus)}, environ={}).config.gpus == gpus


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("shm_size", "16g"),
        ("shm_size", "512m"),
        ("shm_size", "123456789"),
        ("memlock", "unlimited"),
        ("memlock", "default"),
        ("nofile", "65536"),
    ],
)
def test_a_value_as_typed_is_read_back_as_the_same(name: str, text: str) -> None:
    value = getattr(load({"object_store_memory": "100m"} | {name: text}, environ={}).config, name)
    assert as_typed(name, value) == text


@pytest.mark.usefixtures("folder")
def test_a_comma_divides_variables_only_before_the_next_name() -> None:
    text = "NCCL_IB_HCA=mlx5_0,mlx5_1, NCCL_DEBUG=INFO,EMPTY="
    config = load({}, environ={"VLLMRAY_ENV": text, "VLLMRAY_VOLUMES": "/a:/b,/c:/d:ro"}).config
    assert config.env == ("NCCL_IB_HCA=mlx5_0,mlx5_1", "NCCL_DEBUG=INFO", "EMPTY=")
    assert config.volumes == ("/a:/b", "/c:/d:ro")
