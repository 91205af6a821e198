"""Every command line that vllmray prints, pasted: read by the real command line, it says what was meant."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import vllmray
from tests.unit.cli.test_cli import exit_code
from tests.unit.cli.test_plan import DUMMY, make_model
from tests.unit.support import config, resolved
from vllmray.cli.app import COMMANDS, application
from vllmray.cli.main import split
from vllmray.cli.wiring import Invocation
from vllmray.cluster.run import Outcome
from vllmray.cluster.spec.commands import up_command, worker_command
from vllmray.config.models import ClusterConfig
from vllmray.config.settings import load
from vllmray.output.tables import Access, outcome_text

SOURCES = Path(vllmray.__file__).parent
# What stands in an f-string for a value that only a run knows -> such a value. Everything else stands as a word.
VALUES = {
    "cluster_option": " --cluster lab",
    "place_option": " --cluster lab --host ssh://gpu2",
    "place": " --cluster lab --host ssh://gpu2",
    "start": "head",
    "'|'.join(there)": "head",
    "container.labels[labels.ROLE]": "engine",
    "self._cluster": "lab",
}
COMMAND = re.compile(rf"vllmray(?: --debug)? (?:{'|'.join(COMMANDS)})\b[^`;|)\n]*")


def parsed(line: str) -> tuple[str, dict[str, Any], tuple[str, ...]]:
    """(command, its arguments by name, what stands after --) of a line, as the real command line reads it."""
    program, *argv = shlex.split(line)
    assert program == "vllmray"
    ours, vllm_args = split(argv)
    group: Any = typer.main.get_command(application(ours))
    context = group.make_context("vllmray", list(ours), obj=Invocation(vllm_args=vllm_args))
    name, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])
    while hasattr(command, "resolve_command"):
        context = command.make_context(name, rest, parent=context)
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
    return name, command.make_context(name, rest, parent=context).params, vllm_args


def settings_of(line: str) -> ClusterConfig:
    """What `up` would make of it, where nothing else is set."""
    name, params, vllm_args = parsed(line)
    assert name == "up"
    flags = {field: params[field] for field in ClusterConfig.model_fields if field in params}
    flags["ray_ports"] = dict(text.split("=") for text in flags["ray_ports"] or ())
    return load(flags | {"vllm_args": vllm_args}, environ={}).config


def differences(pasted: ClusterConfig, meant: ClusterConfig, *besides: str) -> list[str]:
    names = (name for name in ClusterConfig.model_fields if name not in besides)
    return [name for name in names if getattr(pasted, name) != getattr(meant, name)]


SPECIAL: dict[str, Any] = {
    "cluster": "lab",
    "image": "my/image:1",
    "model": "/models/my model",
    "accelerator": "cpu",
    "shm_size": "2g",
    "object_store_memory": "200m",
    "memlock": "unlimited",
    "nofile": "default",
    "user": "1000:1000",
    "rdma": True,
    "writable_root": True,
    "ray_metrics": True,
    "volumes": ("/a b:/c", "/d:/d:rw"),
    "env": ("A=b c", "NCCL_IB_HCA=mlx5_0,mlx5_1"),
    "ray_ports": {"gcs": 6390},
}


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("runtime", ["docker", "native"])
def test_the_workers_command_makes_a_worker_of_the_same_settings(runtime: str) -> None:
    python = "/opt/my env/bin/python" if runtime == "native" else None
    meant = ClusterConfig(head_ip="10.0.0.1", runtime=runtime, python=python, **SPECIAL)
    pasted = settings_of(worker_command(meant))
    others = ("image",) if runtime == "native" else ("runtime",)
    assert differences(pasted, meant, "gpus", "token_file", *others) == []


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"model": "org/other", "max_model_len": "auto", "tensor_parallel_size": 4, "pipeline_parallel_size": 1},
        {"model": "/m/a b", "max_model_len": "128k", "cluster_gpus": "2x80GiB,2x80GiB", "allow_tp_across_hosts": True},
        {"env": ("VLLM_PP_LAYER_PARTITION=20,12",), "vllm_args": ("--quantization", "fp8", "--hf-overrides", "{}")},
        {"accelerator": "amd", "image": "my/image", "cluster": "lab"},
    ],
)
def test_the_command_after_a_plan_starts_what_was_planned(settings: dict[str, Any]) -> None:
    meant = load(settings, environ={}).config
    assert differences(settings_of(up_command(meant)), meant) == []


@pytest.mark.usefixtures("folder")
def test_the_command_after_a_plan_says_the_model_and_sizes_also_where_they_are_the_defaults() -> None:
    """Pasted elsewhere, another .env would settle them."""
    Path(".env").write_text("MODEL_NAME=org/another\nMAX_MODEL_LEN=99\nTENSOR_PARALLEL_SIZE=8\n")
    name, params, vllm_args = parsed(up_command(ClusterConfig()))
    assert (name, vllm_args) == ("up", ())
    flags = {field: params[field] for field in ("model", "max_model_len", "tensor_parallel_size")}
    assert differences(load(flags, environ={}).config, ClusterConfig()) == []


def test_a_plan_prints_the_command_that_starts_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "my.env").write_text("MODEL_NAME=org/another\nMAX_MODEL_LEN=99\nVLLM_PORT=9000\n")
    path = make_model(folder, "llama-3.1-70b")
    argv = ("--gpus", "80GiB,80GiB,24GiB", "--max-model-len", "8k", "--env-file", f"{folder}/my.env")
    assert exit_code("plan", str(path), *argv, *DUMMY, "--served-model-name", "a b") == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("vllmray up"))
    pasted = settings_of(line)
    assert (pasted.model, pasted.max_model_len, pasted.vllm_args[-1]) == (str(path), 8000, "a b")
    assert pasted.environment["VLLM_PP_LAYER_PARTITION"].count(",") == 2
    assert parsed(line)[1]["env_file"] == folder / "my.env"


def test_what_up_prints_at_its_end_is_about_the_same_cluster_on_the_same_host() -> None:
    settled = config(cluster="lab", vllm_args=("--served-model-name", "short", "long")).typed_on("ssh://gpu 2")
    for role, access in (("head", Access("http://10.0.0.1:8000/v1", None, None)), ("worker", None)):
        text = outcome_text(Outcome(role, resolved(settled), "", ready=True), access)  # type: ignore[arg-type]  # a literal
        lines = [line for line in text.splitlines() if line.startswith("vllmray ")]
        assert len(lines) == 3
        for line in lines:
            _, params, _ = parsed(line)
            assert (params["cluster"], params["host"]) == ("lab", "ssh://gpu 2")
    head = outcome_text(
        Outcome("head", resolved(settled), "", ready=True), Access("http://10.0.0.1:8000/v1", None, None)
    )
    assert '"model": "short"' in head


def test_on_a_daemon_that_is_taken_without_tls_the_lines_say_so_too() -> None:
    settled = config(insecure_docker_tcp=True, cluster_gpus="2x80GiB,2x80GiB").typed_on("tcp://10.0.0.1:2375")
    for line in (up_command(settled), f"vllmray status{settled.place_option}"):
        assert parsed(line)[1]["host"] == "tcp://10.0.0.1:2375"
        assert parsed(line)[1]["insecure_docker_tcp"] is True
    assert "insecure" not in config().place_option


def text_of(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_part(value) for value in node.values)
    return None


def _part(value: ast.expr) -> str:
    if isinstance(value, ast.FormattedValue):
        source = ast.unparse(value.value)
        return VALUES.get(source, VALUES.get(source.rpartition(".")[2], "WORD"))
    return str(text_of(value))


def printed() -> Iterator[tuple[str, str]]:
    """(where, command line) of each that stands in a text of the sources; docstrings are not printed."""
    for path in sorted(SOURCES.rglob("*.py")):
        tree = ast.parse(path.read_text())
        inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        inner |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            text = text_of(node) if id(node) not in inner else None
            for match in COMMAND.finditer(text or ""):
                yield f"{path.relative_to(SOURCES)}:{node.lineno}", match[0]  # type: ignore[attr-defined]


# In running text a command ends where the sentence goes on.
REST = re.compile(
    r" (?:on the head's host|takes|there\b|that\b|shows|does|removes|makes|gives|of another|runs|to\.).*|[.,:]$|\. .*"
)


@pytest.mark.parametrize(("where", "line"), [pytest.param(*each, id=f"{each[0]} {each[1]}") for each in printed()])
def test_every_command_in_a_hint_is_one_that_can_be_typed(where: str, line: str) -> None:
    line = REST.sub("", line).replace("head|worker|engine", "head").replace(" --help-all", "").replace(" --help", "")
    if " --" in line:
        parsed(line)
        return
    left_out = ""
    try:  # the bare name of a command, as in "`vllmray image copy` gives it an image"
        parsed(line)
    except typer.BadParameter as error:
        left_out = type(error).__name__
    assert left_out in ("", "MissingParameter"), where
