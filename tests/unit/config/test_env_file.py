"""A .env file as Compose reads it: variables in values, lines that can't be read, names that were meant otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.config.test_settings import details
from vllmray.config.env_file import parse_env_file
from vllmray.config.settings import load

ENVIRONMENT = {"HOME": "/home/me", "SET": "s", "EMPTY": ""}


def value(text: str, environ: dict[str, str] | None = None) -> str:
    """Of A in a file that says A=text, after X=x and NONE= on earlier lines."""
    read = parse_env_file(f"X=x\nNONE=\nA={text}\n", ".env", ENVIRONMENT if environ is None else environ)
    assert not read.unreadable
    assert not read.wrong
    return read.values["A"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${HOME}/.cache/huggingface", "/home/me/.cache/huggingface"),
        ("$HOME/.cache", "/home/me/.cache"),
        ("$X-$SET.$X", "x-s.x"),
        ("${NOT:-8000}", "8000"),
        ("${NOT-8000}", "8000"),
        ("${EMPTY:-8000}", "8000"),
        ("${EMPTY-8000}", ""),
        ("${NONE:-d}", "d"),
        ("${NONE-d}", ""),
        ("${SET:-d}${SET-d}", "ss"),
        ("${SET:?not told}${SET?not told}", "ss"),
        ("${EMPTY?not told}", ""),
        ("${SET:+r}${SET+r}${EMPTY+r}", "rrr"),
        ("${EMPTY:+r}${NOT:+r}${NOT+r}", ""),
        ("${NOT:-${ALSO:-${X}}}", "x"),
        ("${NOT:-a}b", "ab"),
        ("${NOT-}", ""),
        ("${SET:-${NOT}}", "s"),
        ("cost$$5", "cost$5"),
        ("$$HOME", "$HOME"),
        (r"\$HOME", "$HOME"),
        ("'$HOME ${X} $$'", "$HOME ${X} $$"),
        ('"$HOME and ${X}"', "/home/me and x"),
        (r'"\$HOME \" \\$X \\"', '$HOME " \\x \\'),
        ('"a$$b"', "a$b"),
        ('"1\\n2"', "1\n2"),
        ("${X} # ${not read", "x"),
    ],
)
def test_variables_in_values_are_put_in_as_compose_does(text: str, expected: str) -> None:
    assert value(text) == expected


def test_the_environment_stands_before_earlier_lines_of_the_file_and_later_ones_are_not_seen() -> None:
    assert value("$X", {"X": "environment"}) == "environment"
    assert value("${LATER:-no}\nLATER=yes") == "no"


@pytest.mark.usefixtures("folder")
def test_settings_are_what_their_variables_come_to() -> None:
    Path(".env").write_text(
        "BASE=/data\nMODEL_CACHE_DIR=${HOME}/.cache/huggingface\nVLLM_PORT=${PORT:-8001}\nMODEL_NAME='org/$name'\n"
        "VLLMRAY_VOLUMES=${BASE}/a:/a,${BASE}/b:/b\n"
    )
    config = load({}, environ={"HOME": "/home/me"}).config
    assert (config.model_cache_dir, config.port, config.model) == ("/home/me/.cache/huggingface", 8001, "org/$name")
    assert config.volumes == ("/data/a:/a", "/data/b:/b")
    assert load({}, environ={"HOME": "/", "PORT": "9000"}).config.port == 9000


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("${PORT:?give a port}", "it needs a variable that is not set; give a port"),
        ("${EMPTY:?give $HOME}", "it needs a variable that is not set; give $HOME"),
        ("${PORT?}", "it needs a variable that is not set; set it"),
        ("${PORT", "a ${ that is not closed; write ${NAME}; for a dollar sign write $$, or the value in single quotes"),
        ("${PORT:-8000", "a ${ that is not closed; write ${NAME}; for a dollar sign write $$, or the value in single "),
        ("80$", "a $ that does not start a variable; for a dollar sign write $$, or the value in single quotes"),
        ("${1}", "a $ that does not start a variable; for a dollar sign write $$, or the value in single quotes"),
        ("80${PORT}", "a variable in its value is not set; set it, or write ${NAME:-} for an empty one; for a dollar "),
        ("80$PORT$HOME", "a variable in its value is not set; set it, or write ${NAME:-} for an empty one; for a "),
    ],
)
def test_an_expression_that_cant_be_settled_is_an_error_with_its_line(text: str, line: str) -> None:
    Path(".env").write_text(f"# ports\n\nVLLM_PORT={text}\nOTHERS=$ ${{ ${{NONE}}\n")
    (problem,) = details(environ={"EMPTY": "", "HOME": "/home/secret"})
    assert problem.startswith(f"VLLM_PORT in .env, line 3: {line}")
    assert "secret" not in problem


@pytest.mark.usefixtures("folder")
def test_a_value_that_is_nothing_but_an_unset_variable_is_empty_and_said_to_be() -> None:
    Path(".env").write_text("HF_TOKEN=${HF_TOKEN}\nOTHERS=${HF_TOKEN}\nNCCL_IB_HCA=$HCA\n")
    loaded = load({}, environ={})
    assert (loaded.config.hf_token, loaded.config.env) == (None, ())
    assert loaded.notices == tuple(
        f"{name} in .env is empty: it refers to a variable that is not set" for name in ("HF_TOKEN", "NCCL_IB_HCA")
    )
    assert load({}, environ={"HF_TOKEN": "hf_x", "HCA": "mlx5_0"}).notices == ()


@pytest.mark.usefixtures("folder")
def test_a_secret_with_a_dollar_sign_is_refused_and_not_shortened() -> None:
    Path(".env").write_text("VLLM_API_KEY=very$ecret\n")
    (problem,) = details()
    assert problem.startswith("VLLM_API_KEY in .env, line 1: a variable in its value is not set")
    assert "ecret" not in problem
    Path(".env").write_text("VLLM_API_KEY='very$ecret'\n")
    key = load({}, environ={}).config.api_key
    assert key is not None
    assert key.get_secret_value() == "very$ecret"


@pytest.mark.usefixtures("folder")
def test_every_line_that_cant_be_read_is_told_at_once_with_all_else() -> None:
    Path(".env").write_text(
        "MODEL_NAME=\"Qwen/Qwen3-8B\n\n# fine\nVLLM_PORT 8000\nMAX_MODEL_LEN: 5\nHF_TOKEN='very_secret\n"
        "export TENSOR_PARALLEL_SIZE=two\nRAY_HEAD_IP\nSOMEONES\n"
    )
    lines = details(environ={})
    assert lines == [
        *(
            f"line {line} in .env: not NAME=VALUE or a comment, or a quote is not closed; correct it, or "
            "comment it out with #"
            for line in (1, 4, 5, 6)
        ),
        "line 8 in .env: a name without a value; write NAME=VALUE",
        "TENSOR_PARALLEL_SIZE in .env: not a whole number; give digits only",
    ]


@pytest.mark.usefixtures("folder")
def test_a_quote_that_swallows_other_lines_is_an_error() -> None:
    Path(".env").write_text('MODEL_NAME="Qwen/Qwen3-8B\nVLLM_PORT=9000\nRAY_HEAD_IP="\n')
    assert details() == ["MODEL_NAME in .env: its value has several lines; close its quote on the first line"]
    Path(".env").write_text('VLLMRAY_VOLUMES="/a:/a\n/b:/b"\n')
    assert load({}, environ={}).config.volumes == ("/a:/a", "/b:/b")


@pytest.mark.usefixtures("folder")
def test_a_command_that_needs_few_settings_ends_on_lines_that_cant_be_read_too() -> None:
    """What such a line was meant to say nobody knows: it may have been the cluster's name."""
    Path(".env").write_text("VLLM_PORT=$\nMODEL_NMAE=x\nVLLMRAY_CLUSTR=lab\nVLLMRAY_CLUSTER_GPUS=x\n")
    assert problems_for("cluster") == ["VLLMRAY_CLUSTR in .env: no such setting; did you mean VLLMRAY_CLUSTER?"]
    assert problems_for("runtime") == []
    Path(".env").write_text("VLLMRAY_CLUSTER 'lab'\n")
    assert len(problems_for("runtime")) == 1


def problems_for(*fields: str) -> list[str]:
    from vllmray.errors import ConfigError

    try:
        load({}, environ={}, fields=fields)
    except ConfigError as error:
        return str(error.details).splitlines()
    return []


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("TENSOR_PARALEL_SIZE", "TENSOR_PARALLEL_SIZE"),
        ("MODEL_NMAE", "MODEL_NAME"),
        ("PIPELINE_PARALLEL", "PIPELINE_PARALLEL_SIZE"),
        ("VLLM_PROT", "VLLM_PORT"),
        ("VLLM_IMAGE", "VLLMRAY_IMAGE"),
        ("HUGGINGFACE_HUB_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
        ("vllm_port", "VLLM_PORT"),
    ],
)
def test_a_misspelt_name_of_a_setting_is_an_error_with_the_right_one(name: str, meant: str) -> None:
    Path(".env").write_text(f"{name}=very_secret\n")
    assert details() == [f"{name} in .env: no such setting; did you mean {meant}?"]
    Path(".env").write_text(f"{name}=very_secret$\n")
    (line,) = details()
    assert line.startswith(f"{name} in .env, line 1: a $ that does not start a variable")


@pytest.mark.usefixtures("folder")
def test_a_misspelt_name_in_the_environment_which_may_be_another_programs_is_a_notice() -> None:
    environ = {"TENSOR_PARALEL_SIZE": "4", "GH_TOKEN": "x", "MODEL_NAME": "org/name"}
    loaded = load({}, environ=environ)
    assert loaded.notices == (
        "unknown setting TENSOR_PARALEL_SIZE in the environment; did you mean TENSOR_PARALLEL_SIZE?",
    )


@pytest.mark.usefixtures("folder")
def test_names_of_other_programs_are_left_alone() -> None:
    Path(".env").write_text(
        "GH_TOKEN=a\nMODEL_NAME_2=b\nMODEL=c\nPORT=d\nPOSTGRES_PASSWORD=$e$\nHF_HOME=f\nRAY_HEAD=g\nfoo.bar=h\nBARE\n"
    )
    loaded = load({}, environ={})
    assert loaded.notices == ()
    assert [text for text in loaded.config.env if not text.startswith("RAY_")] == []


@pytest.mark.usefixtures("folder")
def test_the_older_name_of_the_hub_token_counts() -> None:
    def token(environ: dict[str, str]) -> str:
        found = load({}, environ=environ).config.hf_token
        return found.get_secret_value() if found else ""

    assert token({"HUGGING_FACE_HUB_TOKEN": "old"}) == "old"
    assert token({"HUGGING_FACE_HUB_TOKEN": "old", "HF_TOKEN": "new"}) == "new"
    Path(".env").write_text("HUGGING_FACE_HUB_TOKEN=file\n")
    assert token({}) == "file"


@pytest.mark.usefixtures("folder")
def test_variables_for_the_nodes_programs_reach_them_as_with_the_option_which_wins() -> None:
    Path(".env").write_text(
        "NCCL_IB_HCA=mlx5_0,mlx5_1\nGLOO_TIMEOUT=${T:-9}\nUCX_TLS=rc\nVLLM_LOGGING_LEVEL=DEBUG\nTORCH_NCCL_BLOCKING_WAIT=1\n"
        "HF_HUB_DISABLE_XET=1\nNCCL_DEBUG=INFO\nVLLM_USE_V1=\nVLLM_PORT=8001\nEDITOR=vi\n"
    )
    passed = ["NCCL_IB_HCA=mlx5_0,mlx5_1", "GLOO_TIMEOUT=9", "UCX_TLS=rc", "VLLM_LOGGING_LEVEL=DEBUG"]
    passed += ["TORCH_NCCL_BLOCKING_WAIT=1", "HF_HUB_DISABLE_XET=1"]
    config = load({}, environ={"NCCL_ALGO": "Ring"}).config
    assert config.env == (*passed, "NCCL_DEBUG=INFO")
    assert config.port == 8001
    assert load({"env": ["NCCL_DEBUG=WARN"]}, environ={}).config.env == (*passed, "NCCL_DEBUG=WARN")
    Path(".env").write_text("NCCL_DEBUG=INFO\nUCX_TLS=rc\nVLLMRAY_ENV=A=1,NCCL_DEBUG=TRACE\n")
    assert load({}, environ={}).config.env == ("UCX_TLS=rc", "A=1", "NCCL_DEBUG=TRACE")
    assert load({}, environ={"VLLMRAY_ENV": "B=2"}).config.env == ("NCCL_DEBUG=INFO", "UCX_TLS=rc", "B=2")
    assert load({}, environ={}, fields=("cluster",)).config.env == ()


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("RAY_AUTH_MODE", "Ray's token authentication is always on"),
        ("RAY_AUTH_TOKEN", "give --token-file"),
        ("VLLM_HOST_IP", "give --node-ip"),
        ("VLLMRAY_GUARD", "no such setting"),
    ],
)
def test_variables_that_nodes_may_not_have_are_refused_by_name(name: str, instead: str) -> None:
    Path(".env").write_text(f"{name}=very_secret\n")
    (line,) = details()
    assert line.startswith(f"{name} in .env: ")
    assert instead in line
    assert "very_secret" not in line


@pytest.mark.usefixtures("folder")
def test_a_docker_host_and_a_cluster_file_that_the_file_names_are_used() -> None:
    Path(".env").write_text("VLLMRAY_HOST=ssh://far\nVLLMRAY_CONFIG=big.toml\n")
    Path("big.toml").write_text("port = 8005\n")
    loaded = load({}, environ={})
    assert (loaded.host, loaded.config.port) == ("ssh://far", 8005)
    assert load({}, environ={"VLLMRAY_HOST": "ssh://near"}).host == "ssh://near"


@pytest.mark.usefixtures("folder")
def test_folders_of_this_machine_do_not_take_the_place_of_the_nodes_own() -> None:
    names = ["HF_HUB_CACHE", "HF_XET_CACHE", "MODELSCOPE_CACHE", "MODELSCOPE_HOME", "MODELSCOPE_CREDENTIALS_PATH"]
    names += ["TORCH_HOME", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"]
    Path(".env").write_text("".join(f"{name}=/home/me/{name}\n" for name in names) + "HF_HUB_OFFLINE=1\n")
    assert load({}, environ={}).config.env == ("HF_HUB_OFFLINE=1",)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    "name", ["VLLM_API_KEY_2", "VLLM_PROXY_API_KEYS", "RAY_TOKEN2", "VLLM_STORE_CONNECTION_STRING"]
)
def test_a_second_secret_beside_a_known_one_is_no_variable_of_nodes_either(name: str) -> None:
    Path(".env").write_text(f"{name}=very_secret\nVLLM_MULTI_STREAM_GEMM_TOKEN_THRESHOLD=1\n")
    (line,) = details(environ={})
    assert line.startswith(f"{name} in .env: not allowed in the containers; ")
