"""Where settings come from, and what is said of those that can't be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from vllmray.config.fields import ImageBuild
from vllmray.config.gpu_words import ALL_GPUS, Gpus
from vllmray.config.models import DEFAULT_IMAGE, ClusterConfig
from vllmray.config.settings import COMPOSE_NAMES, DELAY_NOTICE, load, variables_of
from vllmray.config.values import UNFIT_VARIABLES, as_typed
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
        "--model: a relative path; give an absolute path, the same on every host",
        f"VLLM_PORT in {env_file}: too small; the least is 1",
        "TENSOR_PARALLEL_SIZE in the environment: not a whole number; give digits only",
        "--: --tensor-parallel-size is set by vllmray itself; use vllmray's --tensor-parallel-size instead",
        "--: --max_model_len is set by vllmray itself; use vllmray's --max-model-len instead",
        "--gpus: write all, a count like 2, or ids like 0,2 or device=2",
        "RAY_HEAD_IP in the environment: IPv6 is not supported by vLLM over Ray; use the host's IPv4 address",
        f"VLLMRAY_SHM_SIZE in {env_file}: not a size; write it like 16g or 512m",
        "nonsense in --ray-port: no such port; `vllmray up --help-all` lists them",
    ]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("name", "secret", "problem"),
    [
        ("HF_TOKEN", "hf_very_secret", None),
        ("VLLMRAY_ENV", "A=1,HF_TOKEN=very_secret", "HF_TOKEN is not allowed; put HF_TOKEN into .env"),
        ("VLLMRAY_ENV", "very_secret", "not NAME=VALUE"),
        ("VLLMRAY_RAY_TOKEN", "very_secret", "too short for a token; the least is 16 characters"),
        ("VLLMRAY_RAY_TOKEN", "a token that is very_secret", "a key is one line of printable ASCII characters"),
        ("VLLM_API_KEY", "very_secret and more", "a key is one line of printable ASCII characters"),
        ("VLLMRAY_API_KEY", "very_secret\nand more", "a key is one line of printable ASCII characters"),
        ("VLLMRAY_SCRAPE_TOKEN", "very_secret-é", "a key is one line of printable ASCII characters"),
    ],
)
def test_a_secret_never_shows_in_a_problem(name: str, secret: str, problem: str | None) -> None:
    lines = details({"port": "x"}, {name: secret})
    assert "very_secret" not in "\n".join(lines)
    assert len(lines) == (2 if problem else 1)
    assert not problem or any(line.startswith(f"{name} in the environment: {problem}") for line in lines)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("HF_TOKEN", ".env"),
        ("HUGGING_FACE_HUB_TOKEN", ".env"),
        ("MODELSCOPE_API_TOKEN", ".env"),
        ("AWS_ACCESS_KEY_ID", ".env"),
        ("AWS_SECRET_ACCESS_KEY", ".env"),
        ("AWS_SESSION_TOKEN", ".env"),
        ("VLLM_API_KEY", "--api-key-file"),
        ("RAY_AUTH_TOKEN", "--token-file"),
        ("RAY_AUTH_TOKEN_PATH", "--token-file"),
        ("RAY_AUTH_MODE", "always on"),
    ],
)
def test_variables_that_are_secrets_are_refused(name: str, instead: str) -> None:
    """As an option, in the environment, in .env and in the cluster file."""
    assert set(UNFIT_VARIABLES) >= {name}
    Path(".env").write_text(f"VLLMRAY_ENV=A=1,{name}=very_secret\n")
    for flags, environ in (
        ({"env": ["A=1", f"{name}=very_secret"]}, {}),
        ({}, {"VLLMRAY_ENV": f"{name}=very_secret"}),
        ({}, {}),
    ):
        (line,) = details(dict(flags), dict(environ))
        assert f": {name} is not allowed; " in line
        assert instead in line
        assert "very_secret" not in line
    Path(".env").unlink()
    Path("vllmray.toml").write_text(f'env = ["{name}=very_secret"]\n')
    (line,) = details()
    assert line.startswith(f"env in vllmray.toml:1:1: {name} is not allowed")
    assert "very_secret" not in line


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("name", "is_refused"),
    [
        *((name, True) for name in ("WANDB_API_KEY", "MY_TOKEN", "LMCACHE_PASSWORD", "DB_PASSWD", "X_SECRET", "token")),
        *((name, True) for name in ("AZURE_ACCOUNT_KEY", "S3_ACCESS_KEY", "S3_SECRET_KEY", "APIKEY_API_KEY")),
        *((name, False) for name in ("TOKENIZERS_PARALLELISM", "VLLM_MAX_TOKENS", "GOOGLE_APPLICATION_CREDENTIALS")),
        *((name, False) for name in ("HF_TOKEN_PATH", "MY_TOKEN_FILE", "AWS_REGION", "CACHE_KEY", "SECRETARY")),
    ],
)
def test_a_variable_that_its_name_calls_a_secret_is_refused(name: str, is_refused: bool) -> None:
    flags: dict[str, object] = {"env": [f"{name}=very_secret"]}
    if not is_refused:
        assert load(flags, environ={}).config.env == (f"{name}=very_secret",)
        return
    (line,) = details(flags)
    assert line.startswith(
        f"--env: {name} is not allowed; it looks like a secret, and `docker inspect` shows variables"
    )
    assert "very_secret" not in line
    Path(".env").write_text(f"VLLM_{name}=very_secret\n")
    if name.isupper():
        (line,) = details()
        assert line.startswith(f"VLLM_{name} in .env: not allowed in the containers; ")


@pytest.mark.usefixtures("folder")
def test_secrets_come_from_variables_and_show_in_no_repr() -> None:
    Path(".env").write_text("VLLM_API_KEY=sk-secret\nVLLMRAY_RAY_TOKEN=a-secret-of-16-or-more\n")
    config = load({}, environ={"VLLMRAY_SCRAPE_TOKEN": "scrape-secret"}).config
    found = [secret.get_secret_value() for secret in (config.api_key, config.ray_token, config.scrape_token) if secret]
    assert found == ["sk-secret", "a-secret-of-16-or-more", "scrape-secret"]
    assert "secret-" not in repr(config) + str(config)
    assert "sk-" not in config.model_dump_json()


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("name", "text"), [(".env", "VLLM_PORT=8001\n"), ("vllmray.toml", "port = 8001\n")])
def test_a_settings_file_that_others_can_write_is_refused(name: str, text: str) -> None:
    Path(name).write_text(text)
    assert load({}, environ={}).config.port == 8001
    Path(name).chmod(0o666)
    with pytest.raises(ConfigError, match=f"{name} can be written by others"):
        load({}, environ={})


@pytest.mark.usefixtures("folder")
def test_what_nobody_opened_is_closed() -> None:
    config = load({}, environ={}).config
    opened = ("no_api_key", "rdma", "writable_root", "ray_metrics", "insecure_docker_tcp", "serves_https")
    assert [name for name in opened if getattr(config, name)] == []
    assert (config.memlock, config.allow_routes, config.volumes) == (None, (), ())
    opening = {
        "VLLMRAY_NO_API_KEY": "true",
        "VLLMRAY_ALLOW_ROUTES": "/v1/rerank,/tokenize",
        "VLLMRAY_TLS": "self-signed",
    }
    config = load({"rdma": True}, environ=opening).config
    assert (config.no_api_key, config.rdma, config.serves_https) == (True, True, True)
    assert config.allow_routes == ("/v1/rerank", "/tokenize")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (
            {"object_store_memory": "32g"},
            "--object-store-memory: larger than shm_size, which contains it; lower it or raise shm_size",
        ),
        ({"port": "6379"}, "ray_ports: port and gcs are both 6379; choose another for one of them"),
        ({"port": "10500"}, "ray_ports: port 10500 is inside Ray's worker ports 10002-10999; move one of them"),
        ({"ray_ports": {"min_worker": "12000"}}, "--ray-port: ray_ports; min_worker must be below max_worker"),
        ({"volumes": ["data:/data"]}, "--volume: not /source:/target or /source:/target:rw"),
        ({"volumes": ["/a:/b:rx"]}, "--volume: not /source:/target or /source:/target:rw"),
        ({"env": ["NOVALUE"]}, "--env: not NAME=VALUE"),
        (
            {"env": ["HF_TOKEN=hf_x"]},
            "--env: HF_TOKEN is not allowed; put HF_TOKEN into .env or the environment, it reaches "
            "containers as a file",
        ),
        (
            {"env": ["A=1", "RAY_AUTH_MODE=disabled"]},
            "--env: RAY_AUTH_MODE is not allowed; Ray's token authentication is always on",
        ),
        ({"allow_routes": ["v1/rerank"]}, "--allow-route: not a route; write it like /v1/rerank"),
        ({"allow_routes": ["/v1/{any}"]}, "--allow-route: not a route; write it like /v1/rerank"),
        ({"tls": "yes"}, "--tls: not one of the choices; use 'self-signed'"),
        (
            {"ssl_certfile": "/c.pem"},
            "ssl_keyfile: --ssl-certfile and --ssl-keyfile belong together; give both",
        ),
        (
            {"ssl_keyfile": "/k.pem"},
            "--ssl-keyfile: --ssl-certfile and --ssl-keyfile belong together; give both",
        ),
        (
            {"ssl_certfile": "/c.pem", "ssl_keyfile": "/k.pem", "tls": "self-signed"},
            "--ssl-keyfile: --tls and --ssl-certfile exclude each other; give one of them",
        ),
        ({"user": "me"}, r"--user: has invalid characters; it must match ^\d{1,10}:\d{1,10}$"),
        (
            {"cluster": "My Cluster"},
            "--cluster: has invalid characters; it must match ^[a-z0-9][a-z0-9-]{0,40}$",
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
        (
            {"vllm_args": ("--api-key", "sk-x")},
            "--: --api-key is set by vllmray itself; use vllmray's --api-key-file, or VLLM_API_KEY in .env instead",
        ),
        ({"vllm_args": ("-tp", "5")}, "--: -tp is set by vllmray itself; use vllmray's --tensor-parallel-size instead"),
    ],
)
def test_what_is_said_of(flags: dict[str, object], line: str) -> None:
    assert line in details(flags)


@pytest.mark.parametrize(
    ("typed", "tokens"),
    [("128k", 128_000), ("128K", 131072), ("1M", 2**20), ("25.6k", 25600), ("auto", -1), ("AUTO", -1), ("-1", -1)],
)
def test_a_length_is_written_as_vllm_takes_it(typed: str, tokens: int) -> None:
    config = load({"max_model_len": typed}, environ={}).config
    assert config.max_model_len == tokens
    assert load({"max_model_len": as_typed("max_model_len", tokens)}, environ={}).config == config


@pytest.mark.parametrize("typed", ["0", "-2", "1.5K", "many", "12kk"])
def test_a_length_that_vllm_would_refuse_is_refused(typed: str) -> None:
    assert details({"max_model_len": typed})[0].startswith("--max-model-len: ")


@pytest.mark.parametrize("name", ["VLLM_DP_SIZE", "VLLM_DP_RANK"])
def test_variables_that_multiply_the_world_size_are_refused(name: str) -> None:
    assert any("start a cluster for each replica" in line for line in details({"env": [f"{name}=2"]}))


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
        ("GPU-8a2f1c00-1b", Gpus(1, ("GPU-8a2f1c00-1b",))),
        ("MIG-5c3f/1/0", Gpus(1, ("MIG-5c3f/1/0",))),
        ("0:0,0:1", Gpus(2, ("0:0", "0:1"))),
        ("0:0", Gpus(1, ("0:0",))),
        ("nvidia.com/gpu=0:0", Gpus(1, ("0:0",))),
        ("nvidia.com/gpu=0,nvidia.com/gpu=2", Gpus(2, ("0", "2"))),
        ("nvidia.com/gpu=1", Gpus(1, ("1",))),
        ("nvidia.com/gpu=all", ALL_GPUS),
        ('"device=0,1"', Gpus(2, ("0", "1"))),
        ("'\"device=3\"'", Gpus(1, ("3",))),
    ],
)
def test_gpus_are_all_a_count_or_ids(text: str, gpus: Gpus) -> None:
    assert load({"gpus": text}, environ={}).config.gpus == gpus
    assert load({"gpus": str(gpus)}, environ={}).config.gpus == gpus


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0,0", "0 is listed twice; name each GPU once"),
        ("device=1,01", "1 is listed twice"),
        ("GPU-AB,GPU-ab,0", "GPU-AB, GPU-ab is listed twice"),
        ("0", "write all, a count like 2, or ids"),
        ("65", "write all"),
        ("2x80GiB", "write all"),
        ("", "write all"),
        ("device=", "write all"),
        ("0;1", "write all"),
    ],
)
def test_gpus_that_are_none_or_there_twice_are_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load({"gpus": text}, environ={})
    assert f"--gpus: {words}" in str(caught.value.details)


GIB, MIB = 1024**3, 1024**2


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("text", "gpus", "again"),
    [
        ("2x80GiB,80g", ((80 * GIB,) * 2, (80 * GIB,)), "2x80GiB,1x80GiB"),
        ("2 x 80 GiB", ((80 * GIB,) * 2,), "2x80GiB"),
        ("2X80gib", ((80 * GIB,) * 2,), "2x80GiB"),
        ("2x80GiB+1x24GiB", ((80 * GIB, 80 * GIB, 24 * GIB),), "2x80GiB+1x24GiB"),
        ("1 x 24 GiB and 2 x 80 GiB", ((24 * GIB, 80 * GIB, 80 * GIB),), "1x24GiB+2x80GiB"),
        ("2xH100", ((81559 * MIB,) * 2,), "2x81559MiB"),
        ("h100, 4 x l40s", ((81559 * MIB,), (46068 * MIB,) * 4), "1x81559MiB,4x46068MiB"),
        ("2xNVIDIA A100-40GB+RTX 4090", ((40960 * MIB, 40960 * MIB, 24564 * MIB),), "2x40GiB+1x24564MiB"),
        ("NVIDIA GeForce RTX 5090", ((32607 * MIB,),), "1x32607MiB"),
        ("4090", ((24564 * MIB,),), "1x24564MiB"),
        ("8xMI300X", ((196592 * MIB,) * 8,), "8x196592MiB"),
        ("GB10", ((111 * GIB,),), "1x111GiB"),
        ("1.5GiB", ((1536 * MIB,),), "1x1536MiB"),
        ("1x85899345921b", ((85899345921,),), "1x85899345921B"),
    ],
)
def test_gpus_of_a_cluster_are_read_and_what_is_printed_of_them_is_read_back(
    text: str, gpus: tuple[tuple[int, ...], ...], again: str
) -> None:
    config = load({"cluster_gpus": text}, environ={}).config
    assert config.cluster_gpus == gpus
    assert as_typed("cluster_gpus", gpus) == again
    assert load({"cluster_gpus": again}, environ={}).config.cluster_gpus == gpus


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2x80", "80 without a unit would be bytes; write 2x80GiB"),
        ("80", "80 without a unit would be bytes; write 80GiB"),
        ("2x80GiB,2x24", "24 without a unit would be bytes; write 2x24GiB"),
        ("2xA100", "A100 comes with different memory sizes; write A100-40GB or A100-80GB"),
        ("2xH999", "invalid GPUs of a host; write a count and their memory or name, like 2x80GiB or 2xH100"),
        ("2x80b", "invalid GPUs of a host"),
        ("40x80GiB+40x80GiB", "invalid GPUs of a host; it can have 1 to 64"),
        ("2x80GiB+", "invalid GPUs of a host"),
        ("0xH100", "invalid GPUs of a host"),
    ],
)
def test_gpus_of_a_cluster_that_can_not_be_meant_are_refused_with_what_to_write(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load({"cluster_gpus": text}, environ={})
    assert f"--cluster-gpus: {words}" in str(caught.value.details)


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
    config = load({}, environ={"VLLMRAY_ENV": text, "VLLMRAY_VOLUMES": "/a:/b,/c:/d:ro,/e:/f:rw"}).config
    assert config.env == ("NCCL_IB_HCA=mlx5_0,mlx5_1", "NCCL_DEBUG=INFO", "EMPTY=")
    assert config.volumes == ("/a:/b", "/c:/d:ro", "/e:/f:rw")


@pytest.mark.usefixtures("folder")
def test_a_cluster_file_stands_below_everything_else() -> None:
    Path("vllmray.toml").write_text('port = 8001\nvolumes = ["/a:/b"]\ngpus = "0,2"\n[ray_ports]\ngcs = 6400\n')
    config = load({}, environ={}).config
    assert (config.port, config.volumes, config.gpus, config.ray_ports.gcs) == (
        8001,
        ("/a:/b",),
        Gpus(2, ("0", "2")),
        6400,
    )
    assert load({}, environ={"VLLM_PORT": "8002"}).config.port == 8002
    Path(".env").write_text("VLLM_PORT=8003\n")
    assert load({}, environ={}).config.port == 8003


@pytest.mark.usefixtures("folder")
def test_what_a_cluster_file_says_wrongly_is_named_with_all_else() -> None:
    Path("vllmray.toml").write_text(
        'port = 0\nmax_model_length = 1\nhf_token = "secret"\nray_token = "secret"\napi_key = "secret"\n'
        'scrape_token = "secret"\nimage = { build = 3, bse = "x" }\n'
    )
    lines = details({"pipeline_parallel_size": "0"})
    assert {line.split(": ")[0] for line in lines} == {
        "hf_token in vllmray.toml:3:1",
        "ray_token in vllmray.toml:4:1",
        "api_key in vllmray.toml:5:1",
        "scrape_token in vllmray.toml:6:1",
        "max_model_length in vllmray.toml:2:1",
        "--pipeline-parallel-size",
        "image in vllmray.toml:7:1",
        "port in vllmray.toml:1:1",
    }
    assert any("did you mean max_model_len?" in line for line in lines)
    assert not any('"secret"' in line for line in lines)
    assert [line for line in lines if line.startswith("api_key")] == [
        "api_key in vllmray.toml:5:1: a secret in a file that is shared; put it into the environment or .env"
    ]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("text", ["port 8000", "port = [", "\0"])
def test_a_cluster_file_that_is_no_toml_is_an_error_that_names_it(text: str) -> None:
    Path("vllmray.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"can't read vllmray\.toml"):
        load({}, environ={})


@pytest.mark.usefixtures("folder")
def test_another_cluster_file_is_named_in_the_environment_and_must_exist(tmp_path: Path) -> None:
    (tmp_path / "big.toml").write_text('image = { build = "gpu/Dockerfile", pip = ["flask"] }\n')
    config = load({}, environ={"VLLMRAY_CONFIG": str(tmp_path / "big.toml")}).config
    assert config.build == ImageBuild(build=str(tmp_path / "gpu/Dockerfile"), pip=("flask",))
    with pytest.raises(ConfigError, match="can't read"):
        load({}, environ={"VLLMRAY_CONFIG": "none.toml"})


@pytest.mark.usefixtures("folder")
def test_an_image_named_higher_up_is_in_the_place_of_one_to_build() -> None:
    Path("vllmray.toml").write_text("image = { build = true }\n")
    config = load({}, environ={}).config
    assert (config.build, config.image) == (ImageBuild(), DEFAULT_IMAGE)
    config = load({"image": "mine:1"}, environ={}).config
    assert (config.build, config.image) == (None, "mine:1")
