"""Which runtime a command works on, and that it says why."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fake_host import FakeHost
from tests.unit.cli.test_cli import exit_code
from vllmray.cli.credentials import store_of
from vllmray.cli.mark import clusters_known_here, docker_mark, marked, unmark
from vllmray.cli.options import Place
from vllmray.cli.wiring import on_runtime, open_cluster, open_target
from vllmray.cluster.spec.labels import selector
from vllmray.config.models import ClusterConfig
from vllmray.config.settings import load, state_folder
from vllmray.errors import ConfigError, HostError
from vllmray.hosts.base import ContainerSpec
from vllmray.hosts.docker.address import is_without_docker, stated_docker
from vllmray.hosts.native.host import NativeHost
from vllmray.hosts.native.records import NodeSpec, Records
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


def is_refused(address: str | None, runtime: str | None, *, having: str | None = None, starts: bool = False) -> bool:
    """With the daemon's own words, and what to do without it."""
    with pytest.raises(HostError) as caught, open_target(address, runtime, having=having, starts=starts):
        return False
    assert caught.value.exit_code == 3
    assert caught.value.details
    return True


# A daemon that is stated and does not answer: an ssh host that no name server knows, one that is stopped.
STATED = [
    ("DOCKER_HOST", "ssh://nohost.invalid"),
    ("DOCKER_HOST", "unix:///nowhere/docker.sock"),
    ("DOCKER_CONTEXT", "far"),
    ("VLLMRAY_HOST", "unix:///nowhere/docker.sock"),
]


@pytest.mark.parametrize(("name", "value"), STATED)
@pytest.mark.parametrize(
    "command", [("down",), ("down", "--all"), ("down", "--force"), ("status",), ("logs",), ("restart",), ("events",)]
)
def test_a_daemon_that_does_not_answer_is_never_taken_for_one_that_has_nothing(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    name: str,
    value: str,
    command: tuple[str, ...],
) -> None:
    monkeypatch.setenv(name, value)
    assert exit_code(*command) == 3
    said = capsys.readouterr()
    assert "nothing to remove" not in said.out
    assert value in said.err or "Docker context" in said.err


@pytest.mark.parametrize(("name", "value"), STATED)
def test_up_starts_nothing_natively_in_the_place_of_a_daemon_that_does_not_answer(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    sizes = ("--tensor-parallel-size", "1", "--pipeline-parallel-size", "1", "--no-model-check")
    for command in (("up", "--role", "head", "--node-ip", "127.0.0.1", *sizes), ("demo",)):
        assert exit_code(*command) == 3
        assert "runtime native" not in capsys.readouterr().err.replace("--runtime native", "")
    assert not list(state_folder().glob("native/*"))


def test_a_stopped_daemon_and_a_socket_that_one_may_not_use_are_errors_in_the_daemons_words(
    nowhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket(socket.AF_UNIX) as stopped:
        stopped.bind(str(nowhere / "no.sock"))  # nobody listens
        assert exit_code("down") == 3
        said = capsys.readouterr().err
        assert f"cannot reach Docker at unix://{nowhere}/no.sock: connection refused" in said
        assert "Connection refused" in said
        assert "--runtime native" in said


def test_a_socket_that_this_user_may_not_use_is_an_error_that_says_so(nowhere: Path) -> None:
    assert is_refused(None, None)  # and what is imported for it is there when root is nobody
    with socket.socket(socket.AF_UNIX) as closed:
        closed.bind(str(nowhere / "no.sock"))
        (nowhere / "no.sock").chmod(0)
        with as_nobody(), pytest.raises(HostError) as caught, open_target(None, None):
            pass
    assert "Permission denied" in str(caught.value.details)
    assert "group docker" in str(caught.value.hint)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root is another user, who may not do everything."""
    before = os.geteuid()
    os.seteuid(65534 if before == 0 else before)
    try:
        yield
    finally:
        os.seteuid(before)


def test_a_machine_is_without_docker_when_nothing_names_a_daemon_and_no_socket_is_there(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = nowhere / "docker.sock"
    assert is_without_docker({}, place)
    assert is_without_docker({"DOCKER_HOST": "", "DOCKER_CONTEXT": "default"}, place)
    assert not is_without_docker({"DOCKER_HOST": "ssh://far"}, place)
    assert not is_without_docker({"DOCKER_CONTEXT": "far"}, place)
    place.symlink_to(nowhere / "stopped")
    assert not is_without_docker({}, place)
    place.unlink()
    (nowhere / "config").mkdir()
    (nowhere / "config/config.json").write_text('{"currentContext": "far"}')
    monkeypatch.setenv("DOCKER_CONFIG", str(nowhere / "config"))
    assert stated_docker({}) == "the Docker context far"
    assert not is_without_docker({}, place)


def test_without_docker_what_starts_a_cluster_is_native_and_says_why(folder: Path) -> None:
    with open_target(None, None, having="a", starts=True, default_socket=folder / "docker.sock") as target:
        assert isinstance(target.host, NativeHost)
        assert target.runtime == "native"
        assert str(target.why).startswith("no Docker on this machine")


def test_a_socket_at_the_default_place_or_an_earlier_up_is_a_docker_that_must_answer(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "")
    place = folder / "docker.sock"
    docker_mark("a").put()  # as `up` leaves it where the nodes are containers: their daemon is away for a while
    assert runtime_of("a", place) == "docker"
    assert runtime_of("b", place) == "native"
    place.touch()
    assert runtime_of("b", place) == "docker"
    docker_mark("a").take_away()
    place.unlink()
    assert runtime_of("a", place) == "native"


def test_a_command_that_starts_nothing_takes_no_docker_for_a_daemon_that_is_away(folder: Path) -> None:
    """Native would be a cluster that is not there, and `down` would say that there is nothing to remove."""
    assert runtime_of("a", folder / "docker.sock", starts=False) == "docker"


def runtime_of(cluster: str, default_socket: Path, *, starts: bool = True) -> str:
    """What `up` would use, or what starts nothing; the daemon that is asked for then may be there or not."""
    try:
        with open_target(None, None, having=cluster, starts=starts, default_socket=default_socket) as target:
            return target.runtime
    except HostError:
        return "docker"


def test_containers_of_a_cluster_leave_a_mark_until_the_last_is_gone(state: Path) -> None:
    host, far = FakeHost(), FakeHost()
    host.address, far.address = "unix:///fake.sock", "ssh://far"
    spec = ContainerSpec(name="a-head", image="image:1", argv=("sleep", "1"), labels=selector("a"))
    with marked(host, "docker", "a"):
        assert docker_mark("a").is_there
    assert not docker_mark("a").is_there  # nothing was started
    with marked(host, "docker", "a"):
        made = host.create_and_start(spec)
    assert docker_mark("a").is_there
    unmark(host, "a", "b")
    assert docker_mark("a").is_there
    host.stop_and_remove(made.id, timeout=1)
    unmark(host, *clusters_known_here())
    assert not docker_mark("a").is_there
    with marked(host, "native", "c"), marked(far, "docker", "c"):
        assert not docker_mark("c").is_there


def test_down_all_goes_to_every_runtime_and_not_past_a_daemon_that_does_not_answer(
    nowhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record_a_node("demo")
    assert exit_code("down", "--all") == 3
    assert NativeHost(state_folder(), os.environ).containers(selector("demo"))
    assert exit_code("down", "--all", "--runtime", "native") == 0
    assert "removed head" in capsys.readouterr().out


def test_a_daemon_that_was_asked_for_must_answer(nowhere: Path) -> None:
    assert is_refused(None, "docker")
    assert is_refused(f"unix://{nowhere}/other.sock", None)
    assert is_refused(f"unix://{nowhere}/other.sock", None, having="demo", starts=True)


def test_a_docker_address_and_native_do_not_go_together(nowhere: Path) -> None:
    with pytest.raises(HostError, match="is a Docker host"), open_target("tcp://10.0.0.1:2375", "native"):
        pass


def test_native_that_was_said_needs_no_reason(nowhere: Path) -> None:
    with open_target(None, "native") as target:
        assert (target.runtime, target.why) == ("native", None)


def test_a_command_about_a_cluster_goes_where_that_cluster_is(nowhere: Path) -> None:
    record_a_node("demo")
    with open_target(None, None, having="demo") as target:
        assert target.why == "cluster demo runs natively on this machine"
    with open_target(None, None, having="demo", starts=True) as target:
        assert target.runtime == "native"
    assert is_refused(None, None, having="other")


def test_records_of_nodes_that_cant_be_read_are_not_taken_for_none(
    nowhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record_a_node("demo")
    next(state_folder().glob("native/*/format")).write_text("99")
    assert exit_code("status") == 3
    assert "--runtime docker" in capsys.readouterr().err


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
    assert exit_code(*argv, "--runtime", "native", "--python", "/opt/venv/bin/python", "--dry-run=commands") == 0
    text = capsys.readouterr().out
    assert 'PATH="/opt/venv/bin:$PATH"' in text
    assert f"HF_HOME={nowhere}/models" in text
    start = "python3 -P -m ray.scripts.scripts start --address=127.0.0.1:6379 --node-ip-address=127.0.0.2"
    assert f"{start} --temp-dir=/tmp/vllmray-worker-ray" in text
    assert "PYTHONPATH=/tmp/vllmray-worker/vllmray/site" in text
    assert "docker" not in text
    assert "the-token-of-that-head" not in text
    assert not list(nowhere.iterdir())


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize("address", ["ssh://10.0.0.9", "unix:///nowhere/docker.sock"])
def test_a_dry_run_knows_as_much_of_a_host_that_docker_host_names_as_of_one_by_option(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    argv = ("up", "--role", "head", "--dry-run=commands", "--no-model-check", "--runtime", "docker")
    assert exit_code(*argv, "--host", address) == 0
    by_option = capsys.readouterr().out
    assert ("# NODE_IP: " in by_option) is address.startswith("ssh://")
    monkeypatch.setenv("DOCKER_HOST", address)
    assert exit_code(*argv) == 0
    assert capsys.readouterr().out == by_option


@pytest.mark.parametrize("word", ["docker run", "install -D"])
def test_a_dry_run_is_of_the_runtime_that_up_would_take(
    nowhere: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    """A cluster that is processes of this machine is natively gone on with."""
    if word != "docker run":
        record_a_node("dry")
    assert exit_code("up", "--role", "head", "--cluster", "dry", "--dry-run=commands", "--no-model-check") == 0
    text = capsys.readouterr().out
    assert {each for each in ("docker run", "install -D") if f"\n{each}" in text} == {word}


# In the place of Ray and Python: how they were called, what they found, and whose their secrets are.
FOUND = """
echo "called: $0 $*"
ls "$(dirname "$1")" "$(dirname "$1")"/../node $PYTHONPATH/vllmray/payload/cpu 2>&1
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
    native = ("--runtime", "native", "--python", f"{nowhere}/bin/python", "--dry-run=commands", "--no-model-check")
    assert exit_code(*argv, *native) == 0
    text = capsys.readouterr().out
    said = run_lines(text, nowhere / "bin")
    head, engine = (line.split() for line in said if line.startswith("called: "))
    assert [Path(word).name for word in head[1:3]] == ["python3", "main.py"]
    assert [Path(word).name for word in engine[1:3]] == ["python3", "launch.py"]
    assert {"watch.py", "start_head.py", "launch.py", "guard.py", "platform.py"} <= {Path(line).name for line in said}
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
    argv += ["--runtime", "native", "--python", f"{nowhere}/bin/python", "--dry-run=commands"]
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
    argv = (
        "up",
        "--role",
        "worker",
        "--head-ip",
        "10.0.0.1",
        "--node-ip",
        "10.0.0.2",
        "--dry-run=commands",
        "--runtime",
    )
    for runtime in ("docker", "native"):
        assert exit_code(*argv, runtime) == 0
        lines = capsys.readouterr().out.splitlines()
        assert "# and /vllmray/secrets/ray_token, mode 0600, put there before the start" in lines
        assert "the-token-of-that-head" not in "\n".join(lines)


def test_the_worker_command_of_a_native_head_is_native(nowhere: Path) -> None:
    from vllmray.cluster.spec.commands import worker_command

    config = ClusterConfig(runtime="native", image="/x/python", python="/x/python", head_ip="10.0.0.1")
    line = worker_command(config)
    assert "--runtime native --python /x/python" in line
    assert "--image" not in line
