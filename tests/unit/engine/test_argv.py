from __future__ import annotations

import pytest

from tests.unit.support import config
from vllmray.engine.argv import flag_conflicts, server_argv
from vllmray.engine.cpu_platform import register

OURS = ("--ssl-certfile=/c", "--middleware=a.B")


def test_the_users_arguments_come_unchanged_after_ours_and_before_those_that_must_be_last() -> None:
    args = ("--served-model-name", "a b", "--enable-prefix-caching")
    assert server_argv(config(vllm_args=args), OURS)[-5:] == (*args, *OURS)
    assert server_argv(config(vllm_args=args), ())[-3:] == args


def test_ray_is_always_named_as_the_executor() -> None:
    assert "--distributed-executor-backend=ray" in server_argv(config(), OURS)


@pytest.mark.parametrize(
    "flag", ["--api-key", "--api_key=x", "--api-k", "--ssl-keyfile", "--ssl-certfile=/c", "--ssl-c"]
)
def test_what_guards_the_endpoint_is_a_setting_of_vllmrays(flag: str) -> None:
    (problem,) = flag_conflicts((flag,))
    assert f"{flag.partition('=')[0]} is set by vllmray itself" in problem


@pytest.mark.parametrize("choice", ["--enforce-eager", "-O1", "--compilation-config", "-cc.mode=0"])
def test_a_choice_of_compilation_on_the_cpu_is_the_users(choice: str) -> None:
    ours = '--compilation-config={"mode":2,"backend":"eager"}'
    assert ours in server_argv(config(), ())
    assert ours not in server_argv(config(vllm_args=(choice,)), ())
    assert ours not in server_argv(config(accelerator="nvidia"), ())


@pytest.mark.parametrize(("value", "named"), [("1", True), ("0", False), (None, False)])
def test_the_cpu_platform_stands_aside_unless_asked(
    value: str | None, named: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VLLMRAY_CPU_SLOTS", raising=False)
    if value is not None:
        monkeypatch.setenv("VLLMRAY_CPU_SLOTS", value)
    assert (register() is not None) is named
