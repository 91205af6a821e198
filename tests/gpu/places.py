"""Where vllmray is typed: a shell of a host, without Docker or before a daemon; and the hosts of two daemons."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
ADDRESSES = ("10.78.0.1", "10.78.0.2")
NAMESPACE, CABLE = "vrg2", "vrg1"
"""The second host's network, and the end of the cable to it that is in this one."""


@dataclass(frozen=True, slots=True)
class Done:
    """A command that ended."""

    code: int
    stdout: str
    lines: tuple[tuple[float, str], ...]
    """Of its error output, each with the seconds since the start."""
    seconds: float

    @property
    def stderr(self) -> str:
        return "\n".join(line for _, line in self.lines)


def run(
    argv: list[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    log: Path,
    timeout: float,
    running: list[subprocess.Popen[str]],
) -> Done:
    """A command to its end, with the time of each line; everything it says is added to the log.

    Args:
        running: has its process meanwhile.
    """
    began = time.monotonic()
    process = subprocess.Popen(argv, env=dict(env), cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    running.append(process)
    lines: list[tuple[float, str]] = []

    def listen() -> None:
        assert process.stderr is not None
        lines.extend((time.monotonic() - began, line.rstrip("\n")) for line in process.stderr)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    killer = threading.Timer(timeout, process.kill)
    killer.start()
    assert process.stdout is not None
    said = process.stdout.read()
    code = process.wait()
    running.remove(process)
    killer.cancel()
    listener.join(10)
    done = Done(code, said, tuple(lines), time.monotonic() - began)
    with log.open("a") as file:
        file.write(f"$ {' '.join(argv)}\n{said}")
        file.writelines(f"{when:7.1f} {line}\n" for when, line in lines)
        file.write(f"[exit {code} after {done.seconds:.1f} s]\n")
    return done


@dataclass(slots=True)
class Place:
    """Someone's shell on a host, in a folder of its own."""

    name: str
    folder: Path
    settings: dict[str, str]
    log: Path
    inside: tuple[str, ...] = ()
    """What enters the host's network, before every command."""
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return dict(os.environ) | {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(REPOSITORY / "src"), os.environ.get("PYTHONPATH")])),
            "XDG_STATE_HOME": str(self.folder / "state"),
            "VLLMRAY_MODEL_CACHE_DIR": str(self.folder / "cache"),
            **self.settings,
        }

    def vllmray(self, *argv: str, timeout: float = 900) -> Done:
        """The command as it is typed there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        line = [*self.inside, sys.executable, "-m", "vllmray", *argv]
        return run(line, env=self.environment, cwd=self.folder, log=self.log, timeout=timeout, running=self.running)

    def interrupt(self) -> None:
        """Ctrl-C, to whatever runs there."""
        for process in list(self.running):
            process.send_signal(signal.SIGINT)

    def status(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(self.vllmray("status", "--json").stdout)["data"]
        return data


def complete(endpoint: str, model: str, key: str | None, *, tokens: int = 16, timeout: float = 120) -> str:
    """A completion's text; OSError when there is none."""
    body = {"model": model, "prompt": "The capital of France is", "max_tokens": tokens, "temperature": 0}
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(f"{endpoint}/completions", data=json.dumps(body).encode(), headers=headers)
    with urllib.request.urlopen(request, timeout=timeout) as reply:
        choice = json.load(reply)["choices"][0]
    if choice["finish_reason"] not in ("length", "stop"):
        raise OSError(f"a completion ended by {choice['finish_reason']}")
    return str(choice["text"])


@dataclass(slots=True)
class DockerHost:
    """A Docker daemon of ours; the second is in a network of its own, at the other end of a cable."""

    number: int
    folder: Path
    daemon: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return ADDRESSES[self.number - 1]

    @property
    def socket(self) -> str:
        return f"unix://{self.folder}/docker.sock"

    @property
    def inside(self) -> tuple[str, ...]:
        return ("nsenter", f"--net=/run/netns/{NAMESPACE}") if self.number == 2 else ()

    def docker(self, *argv: str) -> str:
        done = subprocess.run(["docker", "-H", self.socket, *argv], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"docker {' '.join(argv)} on host {self.number}: {done.stderr}")
        return done.stdout

    def start(self) -> None:
        """Returns when it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        argv = ["dockerd", "-H", self.socket, "--data-root", str(self.folder / "data")]
        argv += ["--exec-root", str(self.folder / "exec"), "--pidfile", str(self.folder / "pid")]
        argv += ["--bridge=none", "--iptables=false"]
        with (self.folder / "log").open("ab") as log:
            self.daemon = subprocess.Popen([*self.inside, *argv], stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 60
        while subprocess.run(["docker", "-H", self.socket, "info"], capture_output=True, check=False).returncode:
            if time.monotonic() > deadline or self.daemon.poll() is not None:
                raise RuntimeError(f"no daemon on host {self.number}: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.2)

    def stop(self) -> None:
        if self.daemon and self.daemon.poll() is None:
            self.daemon.send_signal(signal.SIGTERM)
            self.daemon.wait(timeout=90)


def lay_cable() -> None:
    """The second host's network, with a cable to this one."""
    remove_cable()
    for line in (
        f"netns add {NAMESPACE}",
        f"link add {CABLE} type veth peer name eth0 netns {NAMESPACE}",
        f"addr add {ADDRESSES[0]}/24 dev {CABLE}",
        f"link set {CABLE} up",
        f"-n {NAMESPACE} addr add {ADDRESSES[1]}/24 dev eth0",
        f"-n {NAMESPACE} link set eth0 up",
        f"-n {NAMESPACE} link set lo up",
    ):
        subprocess.run(["ip", *line.split()], check=True)


def remove_cable() -> None:
    for line in (f"link del {CABLE}", f"netns del {NAMESPACE}"):
        subprocess.run(["ip", *line.split()], check=False, stderr=subprocess.DEVNULL)


LEFT_OUT = ("proc", "sys", "dev", "run", "tmp", "boot", "mnt", "media", "var/lib/docker", "var/cache", "var/log")


def image_of_this_machine(
    name: str, hosts: list[DockerHost], environment: Mapping[str, str], left_out: tuple[str, ...]
) -> None:
    """This machine's own files as an image on each host: for machines that reach no registry.

    Args:
        left_out: paths without the first slash, besides those that no image needs.
    """
    excluded = [f"--exclude=./{path}" for path in (*LEFT_OUT, *left_out)]
    changes = [word for key, value in environment.items() for word in ("--change", f"ENV {key}={value}")]
    argv = ["tar", "--create", "--directory", "/", "--warning=no-file-changed", *excluded, "."]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as tar:
        imports = [
            subprocess.Popen(
                ["docker", "-H", host.socket, "import", *changes, "-", name],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
            )
            for host in hosts
        ]
        assert tar.stdout is not None
        while block := tar.stdout.read(4 << 20):
            for each in imports:
                assert each.stdin is not None
                each.stdin.write(block)
        for each in imports:
            assert each.stdin is not None
            each.stdin.close()
            if each.wait():
                raise RuntimeError(f"docker import ended with exit code {each.returncode}")
