"""A Docker daemon's socket on another host, brought here by the user's own ssh.

One ssh process forwards the remote socket to a local one for as long as the tunnel is open, so that ~/.ssh/config,
agents and jump hosts work as they do by hand. The Docker SDK's own ssh modes are not used: one asks for paramiko, which
knows neither; the other starts an ssh process for each connection and leaves most of them running (docker 7.2,
transport/sshconn.py).
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from vllmray.errors import HostError, WaitTimeoutError
from vllmray.hosts.docker_errors import explain
from vllmray.reporter import SilentStep
from vllmray.wait import NotReady, Ready, wait_until

DEFAULT_SOCKET = "/var/run/docker.sock"
CONNECT_TIMEOUT_S = 10
END_TIMEOUT_S = 5


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

    def argv(self, local: Path) -> list[str]:
        """The ssh command that forwards the daemon's socket to a local one and does nothing else."""
        options = {
            "BatchMode": "yes",  # nobody is there to answer a question
            "ExitOnForwardFailure": "yes",
            "ConnectTimeout": str(CONNECT_TIMEOUT_S),
            "ServerAliveInterval": "15",
            "ControlPath": "none",  # a shared connection would outlive us, and the forwarding with it
        }
        argv = ["ssh", "-N", "-T", *(f"-o{name}={value}" for name, value in options.items())]
        argv += ["-L", f"{local}:{self.socket}"]
        argv += ["-l", self.user] if self.user else []
        argv += ["-p", str(self.port)] if self.port else []
        return [*argv, "--", self.host]


class Tunnel:
    """The remote daemon's socket as a local one; `url` is its Docker address."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._folder = Path(tempfile.mkdtemp(prefix="vllmray-"))
        local = self._folder / "docker.sock"
        self.url = f"unix://{local}"
        try:
            argv = SshAddress.parse(address).argv(local)
            # In a session of its own: Ctrl-C is for the command, which closes the tunnel when it is done.
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        except BaseException:
            shutil.rmtree(self._folder)
            raise
        self._wait(local)

    def _wait(self, local: Path) -> None:
        def probe(_left: float) -> Ready[None] | NotReady:
            if self._process.poll() is not None:
                said = self._process.stderr.read() if self._process.stderr else ""
                raise explain(self._address, "reach the daemon", said or "ssh ended without a word")
            return Ready(None) if local.exists() else NotReady("ssh is connecting")

        try:
            wait_until(
                probe, what="ssh connection", timeout=2 * CONNECT_TIMEOUT_S, step=SilentStep(), poll_interval=0.05
            )
        except WaitTimeoutError as error:
            self.close()
            raise explain(self._address, "reach the daemon", error.message) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the ssh process and remove the socket."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=END_TIMEOUT_S)
        if self._process.stderr:
            self._process.stderr.close()
        shutil.rmtree(self._folder, ignore_errors=True)
