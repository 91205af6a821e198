"""A Docker daemon's socket on another host, brought here by the user's own ssh.

One ssh process forwards the remote socket to a local one for as long as the tunnel is open, so that ~/.ssh/config,
agents and jump hosts work as they do for ssh. The Docker SDK's own ssh modes are not used: one needs paramiko, which
supports neither; the other starts an ssh process for each connection and leaves most of them running (docker 7.2,
transport/sshconn.py).
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from vllmray.errors import BrokenConnectionError, HostError, WaitTimeoutError
from vllmray.hosts.docker.errors import explain, unreachable
from vllmray.hosts.shell import output_of
from vllmray.reporter import SilentStep
from vllmray.wait import NotReady, Ready, wait_until

DEFAULT_SOCKET = "/var/run/docker.sock"
CONNECT_TIMEOUT_S = 10
END_TIMEOUT_S = 5
ENDING_S = 2.0
"""From a connection that broke to the end of the ssh that carried it, on a machine that is busy too."""
TAIL, LINE = 20, 1000
"""Lines of ssh's output that are kept, and characters of each."""
LONGEST_SOCKET = 103
"""Bytes of a Unix socket's path: macOS has room for 104 with the zero at its end, Linux for 108 (sys/un.h, unix(7))."""
ROOM_FOR_SSH = 9
"""Bytes by which the socket that ssh makes for further commands is longer: 17 while it makes it (OpenSSH, mux.c, a dot
and 16 characters), less what "ssh" is shorter than "docker.sock".
"""
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
        """Raises HostError for anything else."""
        parts = urlsplit(address)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if not parts.hostname or parts.hostname.startswith("-") or port == -1 or parts.password:
            raise HostError(f"{address} is not an ssh address", hint="Write it like ssh://user@10.0.0.2.")
        path = parts.path if parts.path not in ("", "/") else DEFAULT_SOCKET
        return cls(_as_written(parts), parts.username, port, path)

    def argv(self, forwarding: str, control: Path | None = None) -> list[str]:
        """The ssh command that forwards something of that host and does nothing else.

        Args:
            forwarding: as ssh's -L takes it.
            control: a socket to make, through which further commands use this connection while it lasts.
        """
        # A connection that the user's own ssh commands share would outlive us, and the forwarding with it.
        shared = {"ControlMaster": "yes", "ControlPersist": "no"} if control else {}
        options = {"ExitOnForwardFailure": "yes", **shared}
        return self._argv(["-N", "-T"], {**options, "ControlPath": str(control or "none")}, "-L", forwarding)

    def command(self, control: Path, *argv: str) -> list[str]:
        """The ssh command that runs a program there, through the connection of that socket."""
        return [*self._argv(["-T"], {"ControlMaster": "no", "ControlPath": str(control)}), *argv]

    def _argv(self, flags: list[str], options: Mapping[str, str], *more: str) -> list[str]:
        always = {
            "BatchMode": "yes",  # there is no terminal to answer a prompt
            "StrictHostKeyChecking": "yes",  # a host whose key is not known may be anyone
            "ConnectTimeout": str(CONNECT_TIMEOUT_S),
            "ServerAliveInterval": "15",
        }
        argv = ["ssh", *flags, *(f"-o{name}={value}" for name, value in {**always, **options}.items())]
        argv += more
        argv += ["-l", self.user] if self.user else []
        argv += ["-p", str(self.port)] if self.port else []
        return [*argv, "--", self.host]


def _as_written(parts: SplitResult) -> str:
    """The host, its case kept: urlsplit lowers it, and aliases in ~/.ssh/config are case-sensitive (ssh_config(5))."""
    place = parts.netloc.rpartition("@")[2]
    if place.startswith("["):
        return place[1:].partition("]")[0]
    return place.partition(":")[0]


def _end_with_parent() -> Callable[[], object] | None:
    """A function for the child, after which the kernel ends it with its parent, also when the parent is killed.

    None where the kernel can't do that (macOS): there a command that is killed (SIGKILL) leaves its ssh running.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    return partial(prctl, PR_SET_PDEATHSIG, signal.SIGTERM.value)


class SshProcess:
    """A running ssh, in a session of its own: Ctrl-C is for the command, which ends it when it is done.

    Its output is read all the time: with a full pipe (64 KiB, man 7 pipe) it would forward nothing more.
    """

    def __init__(self, argv: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            argv,
            preexec_fn=_end_with_parent(),  # noqa: PLW1509  # one system call, looked up before the fork
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._tail: deque[str] = deque(maxlen=TAIL)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        stderr = self._process.stderr
        with suppress(ValueError):  # end() closed it
            while line := stderr.readline(LINE) if stderr else "":
                self._tail.append(line.rstrip())

    def ended(self, within: float = 0) -> bool:
        """Whether it has ended by itself, or does within that many seconds."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=within)
        return self._process.returncode is not None

    def wait(self) -> int:
        """Wait for its end; returns the exit code."""
        return self._process.wait()

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def said(self) -> str:
        """The end of its output, after it has ended."""
        self._reader.join(timeout=1)  # what it started (ProxyCommand) may hold the pipe open
        return "\n".join(self._tail).strip() or "ssh exited without output"

    def end(self) -> None:
        """End it."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=END_TIMEOUT_S)
        self._reader.join(timeout=1)
        if self._process.stderr and not self._reader.is_alive():
            self._process.stderr.close()


def _wait(process: SshProcess, failure: Callable[[str], HostError], is_open: Callable[[], bool]) -> None:
    """Wait until it forwards.

    Args:
        failure: makes the error of what ssh printed.

    Raises:
        HostError: it ended, or took too long.
    """

    def probe(_left: float) -> Ready[None] | NotReady:
        if process.ended():
            raise failure(process.said())
        return Ready(None) if is_open() else NotReady("ssh is connecting")

    try:
        wait_until(probe, what="ssh connection", timeout=2 * CONNECT_TIMEOUT_S, step=SilentStep(), poll_interval=0.05)
    except WaitTimeoutError as error:
        raise failure(error.message) from error


def _socket_in_new_folder() -> Path:
    """Where a socket may be, in a folder for this user alone; in /tmp if the folder for temporary files is too deep."""
    path = Path(tempfile.mkdtemp(prefix="vllmray-")) / "docker.sock"
    if len(os.fsencode(path)) + ROOM_FOR_SSH > LONGEST_SOCKET:
        path.parent.rmdir()
        path = Path(tempfile.mkdtemp(prefix="vllmray-", dir="/tmp")) / path.name  # nosec B108 # mkdtemp makes it private
    return path


class Tunnel:
    """The remote daemon's socket as a local one; `url` is its Docker address."""

    def __init__(self, address: str) -> None:
        self._local = _socket_in_new_folder()
        self._folder = self._local.parent
        self._control = self._folder / "ssh"
        self._address = address
        self.url = f"unix://{self._local}"
        try:
            self._process = self._open()
        except BaseException:
            shutil.rmtree(self._folder)
            raise

    def _open(self) -> SshProcess:
        parsed = SshAddress.parse(self._address)
        process = SshProcess(parsed.argv(f"{self._local}:{parsed.socket}", self._control))
        try:
            _wait(process, partial(unreachable, self._address), self._local.exists)
        except BaseException:
            process.end()
            raise
        return process

    def reopen(self) -> None:
        """Open it again where ssh ended by itself.

        Raises:
            BrokenConnectionError: it could not be opened.
        """
        if not self._process.ended():
            return
        self._process.end()
        self._local.unlink(missing_ok=True)
        self._control.unlink(missing_ok=True)
        try:
            self._process = self._open()
        except HostError as error:
            raise BrokenConnectionError(error.message, details=error.details, hint=error.hint) from error

    def run(self, script: str, *, timeout: float) -> str:
        """The output of a POSIX shell script that runs on that host, through the same connection.

        Raises:
            HostError: it failed, or did not end within that many seconds.
        """
        argv = SshAddress.parse(self._address).command(self._control, "exec", "sh", "-s")
        return output_of(argv, script, self._address, timeout=timeout)

    def last_words(self) -> str:
        """What ssh printed when it ended by itself; "" while it runs, or forwards for a moment longer."""
        if not self._process.ended(within=ENDING_S):
            return ""
        said = self._process.said()
        return said if said.startswith("ssh") else f"ssh: {said}"

    def close(self) -> None:
        """End the ssh process and remove the socket."""
        self._process.end()
        shutil.rmtree(self._folder, ignore_errors=True)


@contextmanager
def forward(address: str, here: int, there: int) -> Iterator[SshProcess]:
    """A port of loopback here that leads to one of loopback there, for as long as the process it yields runs.

    Raises:
        HostError: the port is in use; or the tunnel could not be opened, or ended by itself.
    """
    argv = SshAddress.parse(address).argv(f"127.0.0.1:{here}:127.0.0.1:{there}")
    if _answers(here):
        raise HostError(f"port {here} of this machine is in use", hint="Name another with --port.")
    process = SshProcess(argv)
    try:
        _wait(process, partial(explain, address, "open the ssh tunnel"), lambda: _answers(here))
        yield process
        if process.exit_code:
            raise explain(address, "keep the ssh tunnel open", process.said())
    finally:
        process.end()


def _answers(port: int) -> bool:
    with socket.socket() as knocking:
        return knocking.connect_ex(("127.0.0.1", port)) == 0
