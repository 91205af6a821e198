"""Several Docker hosts on one Linux machine: a network namespace and a daemon each, on one switch.

Host i is 10.78.0.i; this machine's own namespace is on the switch too, as 10.78.0.254, the operator's desk. Needs root,
and Debian's docker.io, docker-registry, iproute2 and openssh-server.

Why as it is: `ip netns exec` would hide the cgroup mounts from the daemon, so nsenter enters the network alone; the
switch is in a namespace of its own, so that no daemon's packet filter drops what crosses it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.rig import image as node_image
from tests.rig.daemon import unmount
from tests.rig.image import VLLMRAY
from tests.rig.kinds import DOCKER_20, DOCKER_28_CONTAINERD, Kind
from tests.rig.model import model_folder

SWITCH = "vrt-switch"
DESK = "vrt-desk"
DESK_ADDRESS = "10.78.0.254"
RUN_FOLDER = Path("/run/vllmray-tests")
PAUSE = "runtime/libpod/tmp/pause.pid"
"""Of the process that holds the namespaces of a rootless Podman."""
USUAL = (DOCKER_20, DOCKER_28_CONTAINERD, DOCKER_20, DOCKER_20)
"""A head and a worker of different kinds, so that each test of a cluster is one of a mixed pair."""


def run(*argv: str, check: bool = True, **options: object) -> subprocess.CompletedProcess[str]:
    """A command, its output kept."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done  # type: ignore[no-any-return]


@dataclass(slots=True)
class TestHost:
    """One host of the rig."""

    __test__ = False

    number: int
    kind: Kind
    data: Path
    daemon: subprocess.Popen[bytes] | None = None
    sshd: subprocess.Popen[bytes] | None = None
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"10.78.0.{self.number}"

    @property
    def namespace(self) -> str:
        return f"vrt{self.number}"

    @property
    def folder(self) -> Path:
        return RUN_FOLDER / str(self.number)

    @property
    def socket(self) -> str:
        return f"{self.folder}/docker.sock"

    @property
    def docker_host(self) -> str:
        return f"unix://{self.socket}"

    @property
    def ssh_host(self) -> str:
        """How the others reach this host's daemon."""
        return f"ssh://root@{self.address}{self.socket}"

    def inside(self, *argv: str) -> tuple[str, ...]:
        """The command line that runs argv in this host's network."""
        return ("nsenter", f"--net=/run/netns/{self.namespace}", *argv)

    def docker(self, *argv: str, check: bool = True) -> str:
        """The docker command against this host's daemon."""
        return run("docker", "-H", self.docker_host, *argv, check=check).stdout

    def inspected(self, form: str) -> list[str]:
        """Each container, also one that stopped, by this format of docker inspect. A container that went after it
        was listed is left out: a command under test removes its short-lived ones at any moment.
        """
        names = self.docker("ps", "--all", "--quiet").split()
        if not names:
            return []
        done = run("docker", "-H", self.docker_host, "inspect", "--format", form, *names, check=False)
        lost = [line for line in done.stderr.splitlines() if "no such object" not in line.lower()]
        if lost:
            raise RuntimeError("\n".join(lost))
        return [line for line in done.stdout.splitlines() if line]

    def start_daemon(self, *, programs: Path | None = None) -> None:
        """Start the daemon as at a boot; returns when it answers.

        Args:
            programs: a folder in which it finds programs first.
        """
        path = os.environ["PATH"] if programs is None else f"{programs}:{os.environ['PATH']}"
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self.daemon = subprocess.Popen(
                self.inside(*self.kind.command(self.folder, self.data, tcp=self.address)),
                env={**os.environ, "PATH": path},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if self.kind.program == "podman":  # Docker's writes it itself, and starts with no other there
            (self.folder / "pid").write_text(str(self.daemon.pid))
        deadline = time.monotonic() + 60
        while run("docker", "-H", self.docker_host, "info", check=False).returncode:
            if time.monotonic() > deadline or self.daemon.poll() is not None:
                raise RuntimeError(f"no {self.kind.name} on host {self.number}: see {self.folder}/log")
            time.sleep(0.2)

    def stop_daemon(self) -> None:
        """Stop as at a clean power-off: the daemon stops its containers and itself."""
        if self.daemon and self.daemon.poll() is None:
            self.daemon.send_signal(signal.SIGTERM)
            self.daemon.wait(timeout=90)

    def start_sshd(self, keys: Path) -> None:
        """An ssh server that accepts the rig's key."""
        config = self.folder / "sshd_config"
        config.write_text(
            f"ListenAddress {self.address}:22\nHostKey {keys}/host\nAuthorizedKeysFile {keys}/user.pub\n"
            f"StrictModes no\nUsePAM no\nPermitRootLogin yes\nPidFile {self.folder}/sshd.pid\n"
        )
        # In a /run of its own, where Docker's usual socket is this host's: ssh://gpu1 needs no path.
        script = (
            f"mount --rbind {RUN_FOLDER} /mnt && mount -t tmpfs tmpfs /run && mkdir -p {RUN_FOLDER} /run/sshd && "
            f"mount --rbind /mnt {RUN_FOLDER} && ln -s {self.socket} /run/docker.sock && "
            f"exec /usr/sbin/sshd -D -f {config}"
        )
        self.sshd = subprocess.Popen(
            self.inside("unshare", "--mount", "sh", "-c", script),
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def vllmray(self, *argv: str, cwd: Path, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """The command as a user on this host types it."""
        return run(*self.command(*argv), check=False, cwd=cwd, env=self.environment, timeout=timeout)

    def start_vllmray(self, *argv: str, cwd: Path, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
        """The same, in the background; subprocess.STDOUT mixes both outputs into one."""
        return subprocess.Popen(
            self.command(*argv),
            cwd=cwd,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )

    def command(self, *argv: str) -> tuple[str, ...]:
        return self.inside(str(VLLMRAY), *argv)

    def clear(self) -> None:
        """Remove every container and volume."""
        for name in self.docker("ps", "--all", "--quiet").split():
            self.docker("rm", "--force", "--volumes", name, check=False)
        for name in self.docker("volume", "ls", "--quiet").split():
            self.docker("volume", "rm", "--force", name, check=False)

    def listening(self) -> set[int]:
        """TCP ports that something listens on, but for the host's own sshd and daemon."""
        lines = run(*self.inside("ss", "-Hltn")).stdout.splitlines()
        return {int(line.split()[3].rpartition(":")[2]) for line in lines} - {22, 2375}

    def processes(self) -> list[str]:
        """Command lines of the processes in this host's network, but for its own sshd and daemon."""
        ours = Path(f"/run/netns/{self.namespace}").stat().st_ino
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                if (process / "ns/net").stat().st_ino == ours and line:
                    found.append(line)
        own = ("dockerd", "containerd", "podman", "/usr/bin/conmon", "/usr/sbin/sshd", "sshd:")
        return [line for line in found if not line.startswith(own)]


@dataclass(slots=True)
class Rig:
    """The hosts, and the image and model that they have."""

    hosts: list[TestHost]
    image: str
    """Name of the node image, the same on every host."""
    model: Path
    """The folder of a real model."""
    ssh: Path
    """A folder whose `ssh` knows the hosts' keys; to be put first on the PATH."""

    def host(self, number: int) -> TestHost:
        return self.hosts[number - 1]

    def stop(self) -> None:
        """Take the rig down, and reap its processes."""
        stop()
        for host in self.hosts:
            for process in (host.daemon, host.sshd):
                if process is not None:
                    process.wait(timeout=60)


def start(*kinds: Kind) -> Rig:
    """Bring up a host of each kind, with the node image loaded."""
    stop()
    count = len(kinds)
    made = node_image.make()
    RUN_FOLDER.mkdir(parents=True, exist_ok=True)
    keys = _keys()
    _network(count)
    hosts = [
        TestHost(number, kind, made.tar.parent / f"{kind.folder}-{number}")
        for number, kind in enumerate(kinds, start=1)
    ]
    home = RUN_FOLDER / "home"
    home.mkdir()
    for host in hosts:
        path = f"{keys}:{VLLMRAY.parent}:{os.environ['PATH']}"
        host.environment = {"HOME": str(home), "PATH": path, "DOCKER_HOST": host.docker_host, "LC_ALL": "C.UTF-8"}
        host.start_daemon()
        host.start_sshd(keys)
        host.clear()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda host: _load(host, made), hosts))
    return Rig(hosts, made.name, model_folder(), keys)


def stop() -> None:
    """Take everything down, also what an interrupted run left."""
    for folder in sorted(RUN_FOLDER.glob("[0-9]*")):
        sock = f"unix://{folder}/docker.sock"
        left = run("docker", "-H", sock, "ps", "-aq", check=False).stdout.split()
        if left:
            run("docker", "-H", sock, "rm", "-f", *left, check=False)
        for name in ("sshd.pid", "pid", PAUSE):
            _end(folder / name)
    for line in run("ip", "netns", "list").stdout.splitlines():
        name = line.split()[0]
        if name == SWITCH or (name.startswith("vrt") and name[3:].isdigit()):
            run("ip", "netns", "del", name)
    run("ip", "link", "del", DESK, check=False)
    unmount(RUN_FOLDER)
    shutil.rmtree(RUN_FOLDER, ignore_errors=True)


def _end(pidfile: Path) -> None:
    """End the process of a pidfile, if it is still the one that wrote it."""
    with contextlib.suppress(OSError, ValueError):
        pid = int(pidfile.read_text())
        process = Path(f"/proc/{pid}")
        if not any(
            word in (process / "cmdline").read_bytes() for word in (b"dockerd", b"podman", b"catatonit", b"sshd")
        ):
            return
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 90
        while process.exists() and time.monotonic() < deadline and "Z" not in (process / "stat").read_text().split()[2]:
            time.sleep(0.1)


def _network(count: int) -> None:
    run("ip", "netns", "add", SWITCH)
    run("ip", "-n", SWITCH, "link", "add", "br0", "type", "bridge")
    run("ip", "-n", SWITCH, "link", "set", "br0", "up")
    for number in range(1, count + 1):
        namespace, port = f"vrt{number}", f"p{number}"
        run("ip", "netns", "add", namespace)
        run("ip", "-n", namespace, "link", "set", "lo", "up")
        run("ip", "link", "add", "eth0", "netns", namespace, "type", "veth", "peer", "name", port, "netns", SWITCH)
        run("ip", "-n", SWITCH, "link", "set", port, "master", "br0", "up")
        run("ip", "-n", namespace, "addr", "add", f"10.78.0.{number}/24", "dev", "eth0")
        run("ip", "-n", namespace, "link", "set", "eth0", "up")
        run("ip", "-n", namespace, "route", "add", "default", "via", DESK_ADDRESS)
    run("ip", "link", "add", DESK, "type", "veth", "peer", "name", "desk", "netns", SWITCH)
    run("ip", "-n", SWITCH, "link", "set", "desk", "master", "br0", "up")
    run("ip", "addr", "add", f"{DESK_ADDRESS}/24", "dev", DESK)
    run("ip", "link", "set", DESK, "up")


def _keys() -> Path:
    keys = RUN_FOLDER / "keys"
    keys.mkdir()
    for name in ("host", "user"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / name))
    host_key = " ".join((keys / "host.pub").read_text().split()[:2])
    (keys / "known_hosts").write_text("".join(f"10.78.0.{number} {host_key}\n" for number in range(1, 10)))
    aliases = "".join(f"Host gpu{number}\n HostName 10.78.0.{number}\n" for number in range(1, 10))
    (keys / "config").write_text(
        f"{aliases}Host *\n User root\n IdentityFile {keys}/user\n UserKnownHostsFile {keys}/known_hosts\n"
        " StrictHostKeyChecking yes\n BatchMode yes\n ConnectTimeout 5\n"
    )
    wrapper = keys / "ssh"
    wrapper.write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {keys}/config "$@"\n')
    wrapper.chmod(0o755)
    return keys


def _load(host: TestHost, made: node_image.Made) -> None:
    if host.docker("images", "--quiet", made.name).strip():
        return
    print(f"[node image] loading it on host {host.number}", file=sys.stderr, flush=True)
    host.docker("load", "--quiet", "--input", str(made.tar))
