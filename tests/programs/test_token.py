"""A cluster's secrets through its life, as typed. Nodes are processes, with a program in the place of Ray and vLLM.

What is looked at is all that another user, or a log, could show.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.unit.support import carried, image_answer, ray_node, seen
from vllmray.demo.run import free_port, free_ray_ports

HEAD_IP, WORKER_IP = "127.0.0.2", "127.0.0.3"
PROGRAM = """#!{python}
import os, sys, time
argv = sys.argv[1:]
script = argv[1] if argv[:1] == ["-c"] else ""
if argv[0].endswith("/probes/image.py"):
    print({image!r})
elif argv[0].endswith("/probes/head_labels.py"):
    print({head!r})
elif argv[0].endswith("watch.py"):
    print({seen!r}, flush=True)
    sys.stdin.read()
elif script or "/probes/" in argv[0]:
    os.execv({python!r}, [{python!r}, *argv])
else:
    print("started", os.path.basename(argv[0]), flush=True)
    time.sleep(600)
"""


@dataclass(slots=True)
class User:
    """Someone with an empty home directory, who types commands."""

    home: Path
    ports: dict[str, int]
    port: int

    def vllmray(self, *argv: str, code: int = 0) -> str:
        """What a command prints, errors too."""
        environment = {
            "HOME": str(self.home),
            "PATH": os.environ["PATH"],
            "LC_ALL": "C.UTF-8",
            "DOCKER_HOST": f"unix://{self.home}/no.sock",
        }
        done = subprocess.run(
            [sys.executable, "-m", "vllmray", *argv],
            env=environment,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        print(f"$ vllmray {' '.join(argv)}\n{done.stdout}{done.stderr}[exit {done.returncode}]")
        assert done.returncode == code
        return done.stdout + done.stderr

    def up(self, *argv: str, code: int = 0) -> str:
        ports = [word for name, port in self.ports.items() for word in ("--ray-port", f"{name}={port}")]
        return self.vllmray("up", "--no-wait", "--cluster", "lab", *ports, *argv, code=code)

    def head(self, *argv: str, code: int = 0) -> str:
        given = ("--node-ip", HEAD_IP, "--port", str(self.port), "--no-model-check", "--tensor-parallel-size", "1")
        return self.up("--role", "head", *given, *self.native, *argv, code=code)

    def worker(self, *argv: str, code: int = 0) -> str:
        given = ("--head-ip", HEAD_IP, "--node-ip", WORKER_IP)
        return self.up("--role", "worker", *given, *self.native, *argv, code=code)

    @property
    def native(self) -> tuple[str, ...]:
        python = str(self.home / "bin/python")
        return (*("--runtime", "native"), *("--python", python), *("--nofile", "default"), *("--accelerator", "cpu"))

    @property
    def state(self) -> Path:
        return self.home / ".local/state/vllmray"

    def kept(self) -> dict[str, str]:
        """The secrets on disk, but for what is public."""
        return {path.name: path.read_text().strip() for path in (self.state / "secrets/lab").iterdir()}

    def nodes(self) -> dict[str, Path]:
        """The folders of nodes, by role."""
        return {path.name.rpartition("-")[2]: path for path in self.state.glob("native/*/nodes/*")}

    def given(self, role: str) -> dict[str, str]:
        """The secrets that a node has, by the names of their files."""
        return {
            path.name: path.read_text().strip() for path in (self.nodes()[role] / "files/vllmray/secrets").iterdir()
        }

    def started(self) -> dict[str, int]:
        """The processes of nodes, by role."""
        states = {role: json.loads((path / "state.json").read_text()) for role, path in self.nodes().items()}
        return {role: state["main"]["pid"] for role, state in states.items()}

    def shown_anywhere(self, secrets: set[str]) -> list[str]:
        """Where one of them stands but in the files that are made for it: on disk, and in processes."""
        found = []
        for path in self.home.rglob("*"):
            if path.is_file() and path.parent.name != "secrets" and path.parent != self.state / "secrets/lab":
                text = path.read_bytes()
                found += [f"{path}" for secret in secrets if secret.encode() in text]
        for process in psutil.process_iter():
            for name in ("environ", "cmdline"):
                try:
                    text = Path(f"/proc/{process.pid}/{name}").read_bytes()
                except OSError:
                    continue  # it has ended
                found += [f"{name} of {process.pid}" for secret in secrets if secret.encode() in text]
        return found


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    ports = free_ray_ports()
    made = User(tmp_path, dict(ports), free_port())
    program = PROGRAM.format(
        python=sys.executable,
        image=json.dumps(image_answer()),
        head=carried(),
        seen=seen(ray_node(HEAD_IP, head=True), ray_node(WORKER_IP), phase="ready"),
    )
    (tmp_path / "bin").mkdir()
    for name in ("python", "python3", "ray"):
        (tmp_path / "bin" / name).write_text(program)
        (tmp_path / "bin" / name).chmod(0o755)
    yield made
    made.vllmray("down", "--all", "--runtime", "native")


def worker_line(said: str) -> list[str]:
    """The command for the other hosts, as it is printed."""
    (line,) = {line.strip() for line in said.splitlines() if line.strip().startswith("vllmray up --role worker")}
    return shlex.split(line)[1:]


def test_a_clusters_secrets_stand_in_their_files_and_nowhere_else(user: User) -> None:
    (user.home / ".env").write_text("HF_TOKEN=hf_a_secret_of_this_user\n")
    said = user.head()
    kept = user.kept()
    kept["hf_token"] = "hf_a_secret_of_this_user"
    of_ray = {name: kept[name] for name in ("ray_token", "hf_token")}
    assert user.given("head") == of_ray
    assert user.given("engine") == {name: kept[name] for name in ("ray_token", "hf_token", "api_key", "scrape_token")}

    joining = worker_line(said)
    assert joining[joining.index("--token-file") + 1] == "vllmray.token"
    assert "(vllmray token --cluster lab | ssh HOST 'umask 077; cat > vllmray.token')" in said
    (user.home / "vllmray.token").write_text(user.vllmray("token", "--cluster", "lab"))
    (user.home / "vllmray.token").chmod(0o600)
    said += user.vllmray(*joining, "--node-ip", WORKER_IP, "--no-wait")
    assert user.given("worker") == of_ray
    for folder in user.nodes().values():
        for path in (folder / "files/vllmray/secrets").iterdir():
            assert path.stat().st_mode & 0o777 == 0o600
        assert folder.stat().st_mode & 0o077 == 0

    for path in (user.home / ".env", user.home / "vllmray.token"):
        path.unlink()
    secrets = {kept[name] for name in ("ray_token", "hf_token", "api_key", "scrape_token")}
    assert not [secret for secret in secrets if secret in said]
    assert user.shown_anywhere(secrets) == []
    user.vllmray("down", "--cluster", "lab")
    assert not list(user.state.glob("native/**/secrets/*"))
    assert user.kept() == {name: secret for name, secret in kept.items() if name != "hf_token"}


def test_rotating_the_token_starts_head_and_engine_anew_with_it_and_changes_nothing_else(user: User) -> None:
    user.head("--max-model-len", "99", "--allow-route", "/v1/rerank")
    user.worker()
    labels = {role: spec_of(path)["labels"] for role, path in user.nodes().items()}
    kept, started = user.kept(), user.started()

    said = user.vllmray("token", "rotate", "--cluster", "lab")
    after = user.kept()
    assert {name for name in kept if kept[name] != after[name]} == {"ray_token"}
    assert not [secret for secret in (*kept.values(), *after.values()) if secret in said]
    assert said.count("vllmray up --role worker") == 1
    assert worker_line(said)[-1] == "--recreate"
    assert "vllmray token --cluster lab" in said
    assert {role for role, pid in user.started().items() if pid != started[role]} == {"head", "engine"}
    assert user.given("head")["ray_token"] == user.given("engine")["ray_token"] == after["ray_token"]
    for role in ("head", "engine"):
        now = spec_of(user.nodes()[role])["labels"]
        assert [name for name in now if now[name] != labels[role][name]] == ["io.vllmray.secrets"]

    # What was typed before is what runs now; the worker has the old token still, until it is started anew.
    started = user.started()
    assert user.head("--max-model-len", "99", "--allow-route", "/v1/rerank").count("running already") == 2
    assert "ray_token: not the one it was started with" in user.worker(code=4)
    assert user.given("worker")["ray_token"] == kept["ray_token"]
    assert user.started() == started
    user.worker("--recreate")
    assert user.given("worker")["ray_token"] == after["ray_token"]


def test_a_rotation_that_fails_leaves_the_token_that_the_running_cluster_has(user: User) -> None:
    user.head()
    started, kept = user.started(), user.kept()
    (user.home / "bin").rename(user.home / "gone")
    user.vllmray("token", "rotate", "--cluster", "lab", code=3)
    assert user.kept() == kept
    assert user.given("head")["ray_token"] == kept["ray_token"]
    (user.home / "gone").rename(user.home / "bin")
    # Who has not the key would give the engine another one.
    key = user.state / "secrets/lab/api_key"
    key.rename(user.home / "key")
    assert "no key for cluster lab on this machine" in user.vllmray("token", "rotate", "--cluster", "lab", code=4)
    (user.home / "key").rename(key)
    assert user.kept() == kept
    assert user.started() == started
    assert user.head().count("running already") == 2


def test_another_token_or_key_than_the_running_ones_is_refused_and_nothing_is_touched(user: User) -> None:
    user.head()
    started, kept = user.started(), user.kept()
    for name, option, text in (
        ("ray_token", "--token-file", "another-token-that-is-long-enough"),
        ("api_key", "--api-key-file", "sk-another"),
    ):
        (user.home / "file").write_text(text)
        (user.home / "file").chmod(0o600)
        said = user.head(option, "file", code=4)
        assert f"    {name}: not the one it was started with\n" in said
        assert "--recreate" in said
        assert text not in said
        assert user.started() == started
    assert user.kept() == kept


def test_stated_secrets_are_kept_once_a_cluster_has_them(user: User) -> None:
    (user.home / "keys").write_text("\nsk-first\n  sk-second  \n")
    (user.home / "token").write_text("a-token-that-is-long-enough\n")
    for name in ("keys", "token"):
        (user.home / name).chmod(0o600)
    user.head("--api-key-file", "keys", "--token-file", "token")
    assert user.vllmray("key", "--cluster", "lab") == "sk-first\nsk-second\n"
    assert user.vllmray("token", "--cluster", "lab") == "a-token-that-is-long-enough\n"
    assert user.kept()["api_key.header"] == "Authorization: Bearer sk-first"
    assert user.given("engine")["api_key"] == "sk-first\nsk-second"
    # So without them the next `up` is the same one.
    assert user.head().count("running already") == 2


def test_the_dashboard_of_a_head_here_is_on_its_port(user: User) -> None:
    user.head()
    assert user.vllmray("dashboard", "--cluster", "lab") == f"http://127.0.0.1:{user.ports['dashboard']}\n"


def spec_of(folder: Path) -> dict[str, Any]:
    spec: dict[str, Any] = json.loads((folder / "spec.json").read_text())
    return spec
