"""The command line itself: options from settings, exit codes, errors as text."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vllmray.cli.app import COMMANDS
from vllmray.cli.main import WITH_VLLM_ARGS, run, split, text_of
from vllmray.cli.options import option_fields, shown_default
from vllmray.config.models import ClusterConfig
from vllmray.config.settings import flag_of, variables_of
from vllmray.errors import (
    ClusterStateError,
    ConfigError,
    HostError,
    UserInterruptError,
    VllmrayError,
    WaitTimeoutError,
    WorkloadError,
)
from vllmray.ray.ports import RayPorts


def exit_code(*argv: str) -> int:
    with pytest.raises(SystemExit) as caught:
        run(argv)
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_each_kind_of_error_has_the_exit_code_of_the_design() -> None:
    codes = {kind: kind.exit_code for kind in (VllmrayError, ConfigError, HostError, ClusterStateError)}
    assert list(codes.values()) == [1, 2, 3, 4]
    assert (WaitTimeoutError.exit_code, WorkloadError.exit_code, UserInterruptError.exit_code) == (5, 6, 130)


def test_an_error_is_its_message_the_others_words_and_the_hint() -> None:
    error = HostError("host: could not start", details="line 1\nline 2", hint="do this")
    assert text_of(error) == "error: host: could not start\n    line 1\n    line 2\nhint: do this"


def test_everything_after_the_first_dashes_is_vllms() -> None:
    assert split(["up", "--role", "head", "--", "--a", "--", "b"]) == (["up", "--role", "head"], ("--a", "--", "b"))
    assert split(["status"]) == (["status"], ())


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize("command", [*(name for name in COMMANDS if name not in WITH_VLLM_ARGS), "--debug", ""])
def test_words_after_the_dashes_are_refused_by_each_command_that_has_no_use_for_them(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(*filter(None, [command]), "--", "--max-num-seqs", "8") == 2
    said = capsys.readouterr().err
    name = f"vllmray {command}" if command in COMMANDS else "vllmray"
    assert said.startswith(f"error: {name} takes no arguments after --, but 2 were given\n")
    assert "up, plan and demo take" in said


@pytest.mark.usefixtures("nowhere")
def test_dashes_with_nothing_after_them_are_no_error_and_their_words_reach_the_commands_that_take_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert exit_code("status", "--runtime", "native", "--") == 4
    assert exit_code("up", "--role", "head", "--", "--api-key", "x") == 2
    assert "--api-key is set by vllmray itself" in capsys.readouterr().err


@pytest.mark.usefixtures("folder")
def test_usage_errors_are_2() -> None:
    assert exit_code("up") == 2
    assert exit_code("up", "--role", "boss") == 2
    assert exit_code("up", "--role", "head", "stray") == 2
    assert exit_code("nonsense") == 2


@pytest.mark.usefixtures("folder")
def test_a_worker_needs_the_heads_address(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("up", "--role", "worker") == 2
    assert "--head-ip" in capsys.readouterr().err


@pytest.mark.usefixtures("folder")
def test_every_setting_has_its_option_and_its_variable_in_the_help(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    assert exit_code("up", "--help-all") == 0
    text = capsys.readouterr().out
    for name in option_fields():
        assert flag_of(name) in text
        if name != "ray_ports":
            assert variables_of(name)[0] in text


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("option", ["--hf-token", "--ray-token", "--api-key", "--scrape-token"])
def test_no_secret_can_be_given_on_the_command_line(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("up", "--role", "head", option, "x") == 2
    assert "No such option" in capsys.readouterr().err


@pytest.mark.usefixtures("folder")
def test_a_dry_run_needs_no_daemon_and_tells_what_it_could_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        exit_code("up", "--role", "head", "--dry-run=commands", "--no-model-check", "--host", "tcp://192.0.2.1:1") == 0
    )
    text = capsys.readouterr().out
    assert "# NODE_IP: the address of this host" in text
    assert "--num-gpus=GPUS" in text
    assert "--node-ip-address=NODE_IP" in text


@pytest.mark.usefixtures("folder")
def test_a_ray_port_without_a_number_is_said_to_be_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("up", "--role", "head", "--ray-port", "gcs") == 2
    assert "NAME=PORT" in capsys.readouterr().err


def test_the_version_is_told_without_importing_anything_heavy() -> None:
    script = (
        "import sys; sys.argv = ['vllmray', '--version']\n"
        "from vllmray.__main__ import main; main()\n"
        "heavy = {'typer', 'docker', 'pydantic', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("vllmray ")


def test_the_examples_are_settings_that_load(folder: Path) -> None:
    from vllmray.config.settings import COMPOSE_NAMES, load

    examples = Path(__file__).parents[3] / "examples"
    for name in ("head.env", "worker.env"):
        text = (examples / name).read_text()
        assert load({}, environ={}, env_file=examples / name).config
        missing = [variable for variable in COMPOSE_NAMES.values() if variable not in text]
        assert missing == []
    loaded = load({}, environ={"VLLMRAY_CONFIG": str(examples / "vllmray.toml")}).config
    assert loaded.build is not None
    assert loaded.build.build is True


SETTINGS = (Path(__file__).parents[3] / "docs/settings.md").read_text()


def rows_of(block: str) -> list[list[str]]:
    """The cells of the tables of docs/settings.md that the code makes, without their heads."""
    tables = SETTINGS.partition(f"<!-- made by scripts/reference: {block} -->")[2].partition("<!-- end")[0]
    lines = [line for line in tables.splitlines() if line.startswith(("| `", "| (none"))]
    return [[cell.strip().strip("`") for cell in line.strip("|").split(" | ")] for line in lines]


def test_the_documentation_has_every_setting_with_its_variables_and_default() -> None:
    """In the words of the model; secrets too, which have no option."""
    settings = [name for name in ClusterConfig.model_fields if name in option_fields() or "SecretStr" in kind_of(name)]
    rows = {row[1].split("`, `")[-1]: row for row in rows_of("settings")}
    assert len(rows) == len(rows_of("settings")) == len(settings)
    for name in settings:
        row = rows["VLLMRAY_RAY_PORT_<NAME>" if name == "ray_ports" else variables_of(name)[0]]
        if name == "ray_ports":
            assert row[0].startswith("--ray-port")
            continue
        assert row[0].partition("`, `")[0] == (flag_of(name) if name in option_fields() else "(none: a secret)")
        assert row[1].split("`, `") == [*reversed(variables_of(name))], name
        assert row[2] == ("default" if name == "memlock" else shown_default(name)), name
        assert row[3] == ClusterConfig.model_fields[name].description


def kind_of(name: str) -> str:
    return str(ClusterConfig.model_fields[name].annotation)


def test_no_secret_is_among_the_options() -> None:
    assert [name for name in option_fields() if "SecretStr" in kind_of(name)] == []


def test_the_documentation_has_every_port_of_rays_in_the_order_and_the_words_of_the_model() -> None:
    expected = [[name, str(field.default), field.description] for name, field in RayPorts.model_fields.items()]
    assert rows_of("ports") == expected
