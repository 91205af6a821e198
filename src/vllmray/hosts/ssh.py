"""A Docker daemon's socket on another host, brought here by the user's own ssh.

One ssh process forwards the remote socket to a local one for as long as the tunnel is open, so that ~/.ssh/config,
agents and jump hosts work as they do by hand. The Docker SDK's own ssh modes are not used: one asks for paramiko, which
knows neither; the other starts an ssh process for each connection and leaves most of them running (docker 7.2,
transport/sshconn.py).
"""

from __future__ import annotations

import ctypes
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from vllmray.errors import HostError, WaitTimeoutError
from vllmray.hosts.docker_errors import explain
from vllmray.reporter import SilentStep
from vllmray.wait import NotReady, Ready, wait_until

DEFAULT_SOCKET = "/var/run/docker.sock"
CONNECT_TIMEOUT_S = 10
END_TIMEOUT_S = 5
PR_SET_PDEATHSIG = 1  # Linux, include/uapi/linux/prctl.h


@dataclass(frozen=True, slots=True)
class SshAddress:
    """ssh://[USER@]HOST[:PORT][/SOCKET], as the docker command takes it too."""

    host: str
    user: str | None
    port: int | None
    socket: str

    @classmethod
    def parse(cls, address: str) -> SshAddress:
        """Raises HostError for what is no such address."""
        parts = urlsplit(address)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if not parts.hostname or parts.hostname.startswith("-") or port == -1 or parts.password:
            raise HostError(f"{address} is not an ssh address", hint="Write it like ssh://user@10.0.0.2.")
        path = parts.path if parts.path not in ("", "/") else DEFAULT_SOCKET
        return cls(parts.hostname, parts.username, port, path)

    def argv(self, forwarding: str) -> list[str]:
        """The ssh command that forwards something of that host and does nothing else.

        Args:
            forwarding: as ssh's -L takes it.
        """
        options = {
            "BatchMode": "yes",  # nobody is there to answer a question
            "StrictHostKeyChecking": "yes",  # a host whose key is not known may be anyone
            "ExitOnForwardFailure": "yes",
            "ConnectTimeout": str(CONNECT_TIMEOUT_S),
            "ServerAliveInterval": "15",
            "ControlPath": "none",  # a shared connection would outlive us, and the forwarding with it
        }
        argv = ["ssh", "-N", "-T", *(f"-o{name}={value}" for name, value in options.items())]
        argv += ["-L", forwarding]
        argv += ["-l", self.user] if self.user else []
        argv += ["-p", str(self.port)] if self.port else []
        return [*argv, "--", self.host]


def with_ciphers_in_hardware(argv: Sequence[str], ciphers: str) -> list[str]:
    """The ssh command with those ciphers first that processors have instructions for, of those that it would take.

    An image is gigabytes, several targets share one processor, and OpenSSH's own first choice, ChaCha20, is in no
    hardware (benchmarks/README.md has both beside each other).

    Args:
        ciphers: as `ssh -G` lists them, by the user's own configuration.
    """
    names = ciphers.split(",")
    first = [name for name in names if name.startswith("aes") and "-gcm@" in name]
    others = [name for name in names if name not in first]
    return [argv[0], f"-oCiphers={','.join(first + others)}", *argv[1:]] if first else list(argv)


def _settled_ciphers(argv: Sequence[str]) -> str:
    """What ssh would offer to that host; empty when it does not say."""
    with suppress(subprocess.TimeoutExpired):
        done = subprocess.run(
            [argv[0], "-G", *argv[1:]], capture_output=True, text=True, check=False, timeout=CONNECT_TIMEOUT_S
        )
        return next((line.split()[1] for line in done.stdout.splitlines() if line.startswith("ciphers ")), "")
    return ""


def _end_with_parent() -> Callable[[], object]:
    """What a child calls to be ended when its parent is, also by a signal that leaves it no time to tidy up."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    return partial(prctl, PR_SET_PDEATHSIG, signal.SIGTERM.value)


def _start(argv: Sequence[str]) -> subprocess.Popen[str]:
    """In a session of its own: Ctrl-C is for the command, which ends the process when it is done."""
    return subprocess.Popen(
        argv,
        preexec_fn=_end_with_parent(),  # noqa: PLW1509  # one system call, looked up before the fork
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _said(process: subprocess.Popen[str]) -> str:
    """The last words of one that has ended."""
    return (process.stderr.read() if process.stderr else "") or "ssh ended without a word"


def _wait(process: subprocess.Popen[str], address: str, what: str, is_open: Callable[[], bool]) -> None:
    """Until it forwards.

    Raises:
        HostError: it ended, or took too long.
    """

    def probe(_left: float) -> Ready[None] | NotReady:
        if process.poll() is not None:
            raise explain(address, what, _said(process))
        return Ready(None) if is_open() else NotReady("ssh is connecting")

    try:
        wait_until(probe, what="ssh connection", timeout=2 * CONNECT_TIMEOUT_S, step=SilentStep(), poll_interval=0.05)
    except WaitTimeoutError as error:
        raise explain(address, what, error.message) from error


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=END_TIMEOUT_S)
    if process.stderr:
        process.stderr.close()


class Tunnel:
    """The remote daemon's socket as a local one; `url` is its Docker address."""

    def __init__(self, address: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="vllmray-"))
        local = self._folder / "docker.sock"
        self.url = f"unix://{local}"
        try:
            parsed = SshAddress.parse(address)
            argv = parsed.argv(f"{local}:{parsed.socket}")
            self._process = _start(with_ciphers_in_hardware(argv, _settled_ciphers(argv)))
        except BaseException:
            shutil.rmtree(self._folder)
            raise
        try:
            _wait(self._process, address, "reach the daemon", local.exists)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the ssh process and remove the socket."""
        _end(self._process)
        shutil.rmtree(self._folder, ignore_errors=True)


@contextmanager
def forward(address: str, here: int, there: int) -> Iterator[subprocess.Popen[str]]:
    """A port of loopback here that leads to one of loopback there, for as long as the process it yields runs.

    Raises:
        HostError: the port is in use; or the tunnel could not be opened, or ended by itself.
    """
    argv = SshAddress.parse(address).argv(f"127.0.0.1:{here}:127.0.0.1:{there}")
    if _answers(here):
        raise HostError(f"port {here} of this machine is in use", hint="Name another with --port.")
    process = _start(argv)
    try:
        _wait(process, address, "open a tunnel", lambda: _answers(here))
        yield process
        if process.returncode:
            raise explain(address, "keep a tunnel", _said(process))
    finally:
        _end(process)


def _answers(port: int) -> bool:
    with socket.socket() as knocking:
        return knocking.connect_ex(("127.0.0.1", port)) == 0
