from __future__ import annotations

import pytest

from tests.unit.support import config
from vllmray.engine.argv import flag_conflicts, server_argv
from vllmray.payload.cpu.platform import register

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


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--uds", "/s"), "replaces the endpoint's port with a Unix socket: leave it out; set the port with --port"),
        (("--ud=/s",), "replaces the endpoint's port with a Unix socket"),
        (("--headless",), "starts an engine without an endpoint"),
        (("--head",), "starts an engine without an endpoint"),
        (("--grpc",), "replaces the HTTP endpoint that vllmray waits for with gRPC"),
        (("--nnodes", "2"), "is for vLLM's executor mp"),
        (("-n2",), "is for vLLM's executor mp"),
        (("-r", "1"), "is for vLLM's executor mp"),
        (("--master_addr=10.0.0.1",), "is for vLLM's executor mp"),
        (("--master-port", "1"), "is for vLLM's executor mp"),
        (("--data-parallel-size", "2"), "multiplies the GPUs that the engine uses"),
        (("--data-par", "2"), "multiplies the GPUs that the engine uses"),
        (("-dp", "2"), "multiplies the GPUs that the engine uses"),
        (("-dp=2",), "multiplies the GPUs that the engine uses"),
        (("-dpl", "2"), "multiplies the GPUs that the engine uses"),
        (("--data-parallel-backend", "ray"), "multiplies the GPUs that the engine uses"),
        (("-pcp", "2"), "a larger --tensor-parallel-size uses more GPUs"),
        (("--enable-elastic-ep",), "multiplies the GPUs that the engine uses"),
        (("--api-server-count", "2"), "vllmray starts exactly one API server itself"),
        (("-asc", "2"), "vllmray starts exactly one API server itself"),
        (("--device-ids", "0"), "use vllmray's --gpus instead"),
        (("-t", "2"), "use vllmray's --tensor-parallel-size instead"),
        (("--distributed-exec", "mp"), "it is always ray"),
        (("--help",), "ends the server before it starts"),
        (("--enforce-eager", "true"), "'true' is not a flag of vLLM or a value of one: leave it out"),
        (("--max-num-seqs", "8", "9"), "'9' is not a flag of vLLM or a value of one: leave it out"),
    ],
)
def test_what_would_take_away_the_port_or_the_gate_is_refused_with_the_reason(args: tuple[str, ...], said: str) -> None:
    (problem,) = flag_conflicts(args)
    assert said in problem


@pytest.mark.parametrize(
    "args",
    [
        ("--served-model-name", "a", "b c"),
        ("--decode-context-parallel-size", "2"),
        ("--dcp-comm-backend", "a2a"),
        ("--config-format", "hf"),
        ("--model-impl", "auto"),
        ("--a-flag-of-another-version", "1", "2"),
        ("--hf-overrides.rope_theta", "-1"),
        ("--override-generation-config", '{"a": 1}'),
        ("-sc", '{"model": "a/b"}'),
        ("--lora-modules", "a=/x", '{"name": "b", "path": "/y"}'),
    ],
)
def test_all_other_flags_pass(args: tuple[str, ...]) -> None:
    assert flag_conflicts(args) == []


@pytest.mark.parametrize(
    "choice", ["--enforce-eager", "-O1", "--compilation-config", "-cc.mode=0", "--enforce-e", "-O"]
)
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
