"""No word of pydantic reaches a user, whatever stands in a setting, an option or a model's config.json."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.test_cli import exit_code
from tests.unit.model.test_config import model
from vllmray.config.cluster_file import NOT_IN_THE_CLUSTER_FILE
from vllmray.config.models import ClusterConfig
from vllmray.config.settings import load, variables_of
from vllmray.errors import ConfigError
from vllmray.model.config import TextConfig

PYDANTIC = re.compile(
    r"input should|should (?:be|have|match)|valid (?:integer|number|string|boolean|list|tuple|dictionary)|"
    r"value error|validation error|extra inputs|field required|unable to|pydantic|instance of|literal\[|constrained",
    re.IGNORECASE,
)
# As a variable has them, and as a cluster file does.
TEXTS = ("x", "-1", "0", "1.5", "1e9", "nan", "inf", "9" * 400, "a" * 300, "\N{SUPERSCRIPT TWO}", "/", "a,b", "{}")
VALUES = ('""', "-1", "0", "1.5", "nan", "inf", "9" * 18, "true", "[]", "[1]", "[[1]]", "{}", "{ x = 1 }", "2026-01-01")


BAD_TOKENS = "Invalid value for '--max-tokens'"


def refusal(environ: dict[str, str]) -> str:
    """What is said of those settings; empty when they are right."""
    try:
        load({}, environ=environ)
    except ConfigError as error:
        return f"{error.message}\n{error.details}\n{error.hint}"
    return ""


@pytest.mark.parametrize("field", [name for name in ClusterConfig.model_fields if name != "build"])
def test_a_bad_setting_is_said_in_our_words(field: str, folder: Path) -> None:
    said = [refusal({variables_of(field)[0]: text}) for text in TEXTS]
    for value in VALUES if field not in NOT_IN_THE_CLUSTER_FILE else ():
        (folder / "vllmray.toml").write_text(f"{field} = {value}\n")
        said.append(refusal({}))
    for table in ('{ build = "", pip = 3, x = 1 }', "{ build = 3 }", "{ base = 1 }") if field == "image" else ():
        (folder / "vllmray.toml").write_text(f"{field} = {table}\n")
        said.append(refusal({}))
    assert any(said) or field in ("hf_token", "vllm_startup_delay")
    for text in said:
        assert not PYDANTIC.search(text), text
        assert "invalid value" not in text


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("up", "--role", "boss"), "error: Invalid value for '--role': 'boss' is not one of 'head', 'worker'."),
        (("up", "--role"), "error: Option '--role' requires an argument."),
        (
            ("chat", "--max-tokens", "x"),
            "error: Invalid value for '--max-tokens': not a whole number; give digits only",
        ),
        (("chat", "--max-tokens", "0"), f"error: {BAD_TOKENS}: too small; the least is 1"),
        (("dashboard", "--port", "70000"), "error: Invalid value for '--port': too large; the most is 65535"),
        (("logs", "boss"), "error: Invalid value for '[ROLE]': 'boss' is not one of 'head', 'worker', 'engine'."),
        (("status", "stray"), "error: Got unexpected extra argument(s) (stray)"),
        (("plan", "--no-such"), "error: No such option: --no-such"),
        (("image",), "error: Missing command."),
        (("nonsense",), "error: No such command 'nonsense'."),
        (("statu",), "error: No such command 'statu'. Did you mean 'status', 'restart'?"),
    ],
)
def test_a_command_line_that_can_not_be_read_is_an_error_like_any_other(
    argv: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(*argv) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error == said
    assert re.fullmatch(r"hint: See `vllmray( \w+)? --help`\.", hint)


@pytest.mark.parametrize("field", TextConfig.model_fields)
@pytest.mark.parametrize("value", ["x", -1, 10**12, 1.5, True, [], ["x"], {"x": 1}, {"bits": "four"}])
def test_a_bad_config_json_is_said_in_our_words(field: str, value: Any) -> None:
    said = ""
    try:
        model("llama-3.1-8b", **{field: value})
    except ConfigError as error:
        said = str(error.details)
    assert not PYDANTIC.search(said), said
