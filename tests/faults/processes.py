"""The processes of a host's containers, found from outside, as a person at the host's shell would."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import time
from pathlib import Path

from tests.rig.daemon import unmount
from tests.rig.hosts import TestHost

# What each is called in its command line. vLLM and Ray give theirs titles.
MAIN = re.compile(r"python3 /vllmray/site/vllmray/payload/(node/main|engine/launch)\.py")
RAYLET = re.compile(r"\S*/raylet --raylet_socket_name")
GCS = re.compile(r"\S*/gcs_server ")
SERVER = re.compile(r"\S*python3? /vllmray/site/vllmray/payload/engine/serve\.py")
CORE = re.compile(r"VLLM::EngineCore")
BARE = re.compile(r"python3 -m vllm\.entrypoints\.openai\.api_server")
HOG = re.compile(r"\S*python3 -c import time; blocks = ")
WATCH = re.compile(r"\S*python3? /vllmray/site/vllmray/payload/node/watch\.py")
ACTOR = re.compile(r"ray::RayWorkerProc")


def find(host: TestHost, role: str, name: re.Pattern[str]) -> list[int]:
    """Processes of the container of that role whose command line begins so."""
    container = host.docker("inspect", "--format", "{{.Id}}", f"vllmray-{role}").strip()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if container in (process / "cgroup").read_text():
                line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if name.match(line):
                    found.append(int(process.name))
    return found


def send(host: TestHost, role: str, name: re.Pattern[str], number: signal.Signals) -> None:
    """A signal to each of them; there must be one."""
    found = find(host, role, name)
    assert found, f"no {name.pattern} in {role} of host {host.number}"
    for pid in found:
        os.kill(pid, number)


def main_process(host: TestHost, role: str) -> int:
    """The first process of a container, as this machine numbers it."""
    return int(host.docker("inspect", "--format", "{{.State.Pid}}", f"vllmray-{role}"))


def power_off(host: TestHost) -> None:
    """Everything of a host at once, as when the power goes: daemon, shims, processes of containers."""
    assert host.daemon is not None
    pids = [host.daemon.pid]
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (process / "cmdline").read_bytes()
            ours = f"{host.folder}/".encode() in line and (b"containerd" in line or b"docker" in line)
            if ours or _in_container_of(process, host):
                pids.append(int(process.name))
    for number in (signal.SIGSTOP, signal.SIGKILL):  # stopped first, so that none sees another go
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
    host.daemon.wait(timeout=30)
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    # What a host has in /run does not survive: a daemon would not start beside its old pidfile when another process, or
    # even a thread, has got that number meanwhile.
    unmount(host.folder / "exec")
    shutil.rmtree(host.folder / "exec", ignore_errors=True)
    (host.folder / "pid").unlink(missing_ok=True)


def _in_container_of(process: Path, host: TestHost) -> bool:
    """Docker's containers of a host are those in its network, but for its sshd."""
    if (process / "ns/net").stat().st_ino != Path(f"/run/netns/{host.namespace}").stat().st_ino:
        return False
    line = (process / "cmdline").read_bytes()
    return not line.startswith((b"/usr/sbin/sshd", b"sshd:"))
