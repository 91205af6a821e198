"""Which runtime a command works on, and that it says why."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.cli.test_cli import exit_code
from vllmray.cli.options import Place
from vllmray.cli.secrets import store_of
from vllmray.cli.wiring import on_runtime, open_cluster, open_target
from vllmray.config.models import ClusterConfig
from vllmray.config.settings import load, state_folder
from vllmray.errors import ConfigError, HostError
from vllmray.hosts.native.records import NodeSpec, Records
from vllmray.hosts.native_host import NativeHost
from vllmray.secrets.store import RAY_TOKEN

# The Docker SDK (7.2, transport/unixconn.py) leaves the socket of a connection that failed to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def record_a_node(cluster: str, role: str = "head", **more: str) -> None:
    """As a node of that cluster would leave it on disk."""
    records = Records(state_folder(), os.uname().nodename)
    draft = records.draft()
    labels = {"io.vllmray.cluster": cluster, "io.vllmray.role": role, **more}
    draft.write_spec(NodeSpec("id", "head", "/p", ("true",), {"PATH": "/bin"}, labels, {}, False, True, {}))
    records.publish(draft, f"vllmray-{cluster}-{role}")


def test_without_a_daemon_it_is_native_and_says_why(nowhere: Path) -> None:
    with open_target(None, None) as target:
        assert isinstance(target.host, NativeHost)
        assert target.runtime == "native"
        assert str(target.why).startswith("no Docker daemon answers: ")


def test_a_daemon_that_was_asked_for_must_answer(nowhere: Path) -> None:
    with pytest.raises(HostError), open_target(None, "docker"):
        pass
    with pytest.raises(HostError), open_target(f"unix://{nowhere}/other.sock", None):
        pass


def test_a_docker_address_and_native_do_not_go_together(nowhere: Path) -> None:
    with pytest.raises(HostError, match="is a Docker host"), open_target("tcp://10.0.0.1:2375", "native"):
        pass


def test_native_that_was_said_needs_no_reason(nowhere: Path) -> None:
    with open_target(None, "native") as target:
        assert (target.runtime, target.why) == ("native", None)


def test_a_command_about_a_cluster_goes_where_that_cluster_is(nowhere: Path) -> None:
    record_a_node("demo")
    with open_target(None, None, having="demo") as target:
        assert target.why == "it has cluster demo here"
    with open_target(None, None, having="other") as target:
        assert str(target.why).startswith("no Docker daemon answers")


@pytest.mark.usefixtures("nowhere")
def test_a_cluster_that_is_not_found_where_no_daemon_answers_may_be_in_its_containers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert exit_code("status") == 4
    assert "no cluster vllmray here; no Docker daemon answers: " in capsys.readouterr().err
    assert exit_code("status", "--runtime", "native") == 4
    assert "Docker daemon" not in capsys.readouterr().err


def test_natively_the_image_is_a_python() -> None:
    config = ClusterConfig(python="/opt/venv/bin/python")
    assert on_runtime(config, "native").image == "/opt/venv/bin/python"
    assert on_runtime(ClusterConfig(), "native").image == sys.executable
    assert on_runtime(config, "docker").image == ClusterConfig().image


def test_a_wrong_setting_that_a_command_does_not_need_is_not_in_its_way(nowhere: Path) -> None:
    (nowhere / ".env").write_text("VLLMRAY_CLUSTER=lab\nVLLM_PORT=none\nVLLMRAY_MISTYPED=1\n")
    with open_cluster(Place(None, None, "native", None, None)) as about:
        assert about.cluster == "lab"
    with pytest.raises(ConfigError):
        load({})
    assert exit_code("down", "--runtime", "native") == 0
    assert exit_code("status", "--runtime", "native") == 4
    assert exit_code("status", "--runtime", "podman") == 2


def test_a_native_dry_run_is_a_command_line_with_this_machines_paths(
    nowhere: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLMRAY_RAY_TOKEN", "the-token-of-that-head")
    argv = ("up", "--role", "worker", "--head-ip", "127.0.0.1", "--node-ip", "127.0.0.2", "--accelerator", "cpu")
    assert exit_code(*argv, "--runtime", "native", "--python", "/opt/venv/bin/python", "--dry-run") == 0
    text = capsys.readouterr().out
    assert 'PATH="/opt/venv/bin:$PATH"' in text
    assert f"HF_HOME={nowhere}/models" in text
    assert "ray start --address=127.0.0.1:6379 --node-ip-address=127.0.0.2 --temp-dir=/tmp/vllmray-worker-ray" in text
    assert "PYTHONPATH=/tmp/vllmray-worker/vllmray/site" in text
    assert "docker" not in text
    assert "the-token-of-that-head" not in text
    assert not list(nowhere.iterdir())


# In the place of Ray and Python: how they were called, what they found, and whose their secrets are.
FOUND = """
echo "called: $0 $*"
ls "$(dirname "$1")" $PYTHONPATH/vllmray/engine 2>&1
stat -c 'secret %n %a' "$(dirname "$RAY_AUTH_TOKEN_PATH")"/*
echo "token: $(cat "$RAY_AUTH_TOKEN_PATH")"
"""


def run_lines(text: str, programs: Path) -> list[str]:
    """What these lines print in a shell, with such programs."""
    programs.mkdir(exist_ok=True)
    for name in ("ray", "python3"):
        (programs / name).write_text(f"#!/bin/sh\n{FOUND}")
        (programs / name).chmod(0o755)
    try:
        done = subprocess.run(["bash", "-eu"], input=text, capture_output=True, text=True, check=True)
    finally:
        for made in Path("/tmp").glob("vllmray-dry-*"):
            shutil.rmtree(made)
    return done.stdout.splitlines()


def test_the_lines_of_a_native_dry_run_work_as_they_stand(nowhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ("up", "--role", "head", "--node-ip", "127.0.0.1", "--accelerator", "cpu", "--cluster", "dry")
    native = ("--runtime", "native", "--python", f"{nowhere}/bin/python", "--dry-run", "--no-model-check")
    assert exit_code(*argv, *native) == 0
    text = capsys.readouterr().out
    said = run_lines(text, nowhere / "bin")
    head, engine = (line.split() for line in said if line.startswith("called: "))
    assert [Path(word).name for word in head[1:3]] == ["python3", "node.py"]
    assert [Path(word).name for word in engine[1:3]] == ["python3", "launch.py"]
    assert {"watch.py", "start_head.py", "launch.py", "vllmray_guard.py", "site", "cpu_platform.py"} <= set(said)
    secrets = [Path(line.split()[1]).name for line in said if line.startswith("secret ") and line.endswith(" 600")]
    assert secrets == ["ray_token", "api_key", "ray_token", "scrape_token"]
    tokens = {line for line in said if line.startswith("token: ")}
    assert tokens == {f"token: {store_of('dry').get(RAY_TOKEN)}"}


@pytest.mark.parametrize("kept", [True, False])
def test_the_lines_of_a_workers_dry_run_take_its_token_from_where_it_is(
    nowhere: Path, capsys: pytest.CaptureFixture[str], kept: bool
) -> None:
    """In a file that the command names, or kept here since this host joined before."""
    argv = ["up", "--role", "worker", "--head-ip", "127.0.0.1", "--node-ip", "127.0.0.2", "--cluster", "dry"]
    argv += ["--runtime", "native", "--python", f"{nowhere}/bin/python", "--dry-run"]
    if kept:
        store_of("dry").keep(RAY_TOKEN, "the-token-of-that-head")
    else:
        (nowhere / "vllmray.token").write_text("the-token-of-that-head\n")
        (nowhere / "vllmray.token").chmod(0o600)
        argv += ["--token-file", "vllmray.token"]
    assert exit_code(*argv) == 0
    text = capsys.readouterr().out
    assert "the-token-of-that-head" not in text
    assert "token: the-token-of-that-head" in run_lines(text, nowhere / "bin")


def test_a_token_that_is_in_no_file_here_is_a_comment_in_a_dry_run(
    nowhere: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLMRAY_RAY_TOKEN", "the-token-of-that-head")
    argv = ("up", "--role", "worker", "--head-ip", "10.0.0.1", "--node-ip", "10.0.0.2", "--dry-run", "--runtime")
    for runtime in ("docker", "native"):
        assert exit_code(*argv, runtime) == 0
        lines = capsys.readouterr().out.splitlines()
        assert "# and /vllmray/secrets/ray_token, mode 0600, put there before the start" in lines
        assert "the-token-of-that-head" not in "\n".join(lines)


def test_the_worker_command_of_a_native_head_is_native(nowhere: Path) -> None:
    from vllmray.cluster.commands import worker_command

    config = ClusterConfig(runtime="native", image="/x/python", python="/x/python", head_ip="10.0.0.1")
    line = worker_command(config)
    assert "--runtime native --python /x/python" in line
    assert "--image" not in line
