"""A Mac as the operator's desk: commands about other hosts work there, and what needs Linux says so."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.cli.test_plan import DUMMY, make_model
from tests.unit.hosts.daemon import JSON, LAST, Daemon, whole
from tests.unit.hosts.test_ssh import RELAY

PROGRAM = Path(__file__).with_name("macos.py")
FOR_LINUX = "error: the native runtime needs Linux, and this machine runs macOS\n"
ON_A_HOST = ("--host", "ssh://gpu2")
HEAD = ("up", "--role", "head", "--node-ip", "10.0.0.1", "--no-model-check")


def on_a_mac(home: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """A command line in a home directory there, with an ssh of ours where that has one."""
    env = {"PATH": f"{home}/bin:{os.environ['PATH']}", "HOME": str(home), "DOCKER_HOST": f"unix://{home}/no.sock"}
    return subprocess.run(
        [sys.executable, PROGRAM, *argv], cwd=home, env=env, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def with_ssh(home: Path) -> None:
    """An ssh to a host whose daemon has no container."""
    daemon = Daemon()
    daemon.answers = {
        "/version": whole({"ApiVersion": "1.45"}),
        "/containers/json": whole([]),
        "/events": JSON + LAST,
        "/_ping": whole("OK"),
    }
    program = home / "bin" / "ssh"
    program.parent.mkdir()
    port = daemon.address.rpartition(":")[2]
    program.write_text(RELAY.format(python=sys.executable, cut=home / "never", port=port))
    program.chmod(0o755)


def test_there_are_no_names_of_linux_there(home: Path) -> None:
    """That the simulation holds: what it takes away is gone, for what is imported later too."""
    program = (
        f"import sys; sys.path.insert(0, {str(PROGRAM.parent)!r}); import macos; macos.become()\n"
        "import ctypes, os, pathlib, platform\n"
        "assert not hasattr(os, 'sched_getaffinity') and not hasattr(ctypes.CDLL(None), 'prctl')\n"
        "assert not pathlib.Path('/proc/self').exists() and platform.system() == 'Darwin'\n"
        "try: open('/proc/self/maps')\n"
        "except FileNotFoundError: print('as on a Mac')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "as on a Mac\n", done.stderr


def test_every_module_but_those_of_nodes_can_be_imported_there() -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(PROGRAM.parent)!r}); import macos; macos.become()\n"
        "import importlib, pkgutil, vllmray\n"
        "for module in pkgutil.walk_packages(vllmray.__path__, 'vllmray.'):\n"
        "    try: importlib.import_module(module.name)\n"
        "    except (ImportError, AttributeError, OSError): print(module.name)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    failed = done.stdout.split()
    of_nodes = ("vllmray.hosts.native.", "vllmray.payload.", "vllmray.demo.gguf_to_hf")
    assert [name for name in failed if not name.startswith(of_nodes)] == []
    assert "vllmray.hosts.native.host" in failed  # so the simulation holds for modules too


def test_no_core_file_is_written_there_either() -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(PROGRAM.parent)!r}); import macos; macos.become()\n"
        "from resource import RLIMIT_CORE, getrlimit, setrlimit\n"
        "from vllmray.secure_files import leave_no_core\n"
        "most = getrlimit(RLIMIT_CORE)[1]; setrlimit(RLIMIT_CORE, (most, most)); leave_no_core()\n"
        "print(getrlimit(RLIMIT_CORE) == (0, most))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "True\n", done.stderr


def test_help_needs_nothing_of_linux(home: Path) -> None:
    done = on_a_mac(home, "--help")
    assert done.returncode == 0, done.stderr
    assert "dashboard" in done.stdout


def test_a_plan_reads_a_folder_of_the_desk(home: Path) -> None:
    done = on_a_mac(home, "plan", str(make_model(home, "llama-3.1-70b")), "--gpus", "2x80GiB,2x80GiB", *DUMMY)
    assert done.returncode == 0, done.stderr
    assert "--tensor-parallel-size 2 --pipeline-parallel-size 2" in done.stdout


@pytest.mark.parametrize("command", [HEAD, ("status",), ("down", "--all"), ("demo",)])
def test_where_no_daemon_answers_the_way_on_is_another_host(home: Path, command: tuple[str, ...]) -> None:
    done = on_a_mac(home, *command)
    assert done.returncode == 3, done.stderr
    assert "cannot reach Docker at unix://" in done.stderr
    assert "no.sock: no such file or directory" in done.stderr
    assert ON_A_HOST[0] in done.stderr
    assert "--runtime native" not in done.stderr


def test_a_mac_without_docker_has_no_native_cluster_by_itself(home: Path) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": str(home)}
    done = subprocess.run(
        [sys.executable, PROGRAM, *HEAD, "--dry-run=commands"],
        cwd=home,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "docker run" in done.stdout


@pytest.mark.parametrize("command", [HEAD, ("status",), ("logs",), ("down", "--force"), ("demo",)])
def test_what_is_native_is_refused_by_name(home: Path, command: tuple[str, ...]) -> None:
    done = on_a_mac(home, *command, "--runtime", "native")
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith(FOR_LINUX)
    assert "hint: " in done.stderr


@pytest.mark.usefixtures("with_ssh")
def test_a_host_is_reached_through_the_users_own_ssh(home: Path) -> None:
    done = on_a_mac(home, "status", *ON_A_HOST)
    assert done.returncode == 4, done.stderr
    assert "ssh://gpu2" in done.stderr


@pytest.mark.usefixtures("with_ssh")
@pytest.mark.parametrize("command", ["chat", "logs", "events", "restart", "dashboard"])
def test_every_command_about_a_cluster_asks_that_host(home: Path, command: str) -> None:
    done = on_a_mac(home, command, *ON_A_HOST)
    assert done.returncode == 4, done.stderr
    assert "vllmray" in done.stderr


@pytest.mark.usefixtures("with_ssh")
def test_a_heads_lines_are_for_its_host_and_its_secrets_are_in_the_library_of_the_desk(home: Path) -> None:
    done = on_a_mac(home, *HEAD, *ON_A_HOST, "--dry-run=commands")
    assert done.returncode == 0, done.stderr
    library = home / "Library" / "Application Support" / "vllmray" / "secrets" / "vllmray"
    assert f"'{library}" in done.stdout  # a name with a space in it can be pasted
    words = [word for line in done.stdout.replace("\\\n", "").splitlines() for word in shlex.split(line, comments=True)]
    assert "docker" in words
    assert not (home / "Library").exists()


def test_secrets_are_made_and_kept_for_one_user(home: Path) -> None:
    on_a_mac(home, *HEAD)
    token = home / "Library" / "Application Support" / "vllmray" / "secrets" / "vllmray" / "ray_token"
    assert token.stat().st_mode & 0o777 == 0o600
    done = on_a_mac(home, "token")
    assert done.stdout == token.read_text()
