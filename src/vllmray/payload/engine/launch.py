"""The main process of the engine container: waits for the GPUs, starts the vLLM server, and restarts it when it exits.

Standard library only; copied into the container with serve.py, the server's own process, and watch.py, through which it
observes Ray. Both are its children.

For each server: its process imports vLLM, which takes tens of seconds and runs while the cluster forms. When watch.py
reports that the GPUs are available and unused, the server is told to start. Once it has generated a token it is ready;
when it stops generating tokens it is ended; when it has exited, what it left is removed and the next server waits for
the GPUs. So an engine never starts on a cluster too small for it, and Docker's restart policy is needed only when this
process, its container or the host is lost. In a crash loop no further server is started. While no server listens,
door.py answers on its port.

Authentication is checked at each start: before a server is started, that Ray requires a token; before the server is
reported ready, that it refuses a request without the key. If either check fails the engine is stopped, and stays so
until a person restarts it.

Its state is in a JSON file that the head container sees too (both mount the same /tmp/ray):
`{"phase": str, "detail": str, "since": unix seconds, "heartbeat": seconds since the boot, "deaths": int,
"missing_since": unix seconds | null, "ray": snapshot}`, with the phases importing, waiting, starting, ready,
given-up (a crash loop) and insecure. Events go to the log, one line of journal.py each.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Literal

if __name__ == "__main__":  # in a container: the folder that holds vllmray's package
    sys.path[0] = str(Path(__file__).parents[3])

from vllmray.payload.engine.closed import NotKnownError, OpenError, check_ray
from vllmray.payload.engine.door import Door
from vllmray.payload.engine.gate import Gate, StateFile, start_watch
from vllmray.payload.engine.pulse import Endpoint, Pulse
from vllmray.payload.engine.remains import SHM, Remains, kill_below
from vllmray.payload.engine.room import Room
from vllmray.payload.engine.server import Server
from vllmray.payload.journal import tell
from vllmray.payload.protocol import ROOT

TICK_S = 1.0
DEATHS, WITHIN_S = 5, 600.0
"""A crash loop: so many servers exited within that time, none after serving for SERVED_S. No more are started."""
SERVED_S = 10.0
PAUSES_S = (0.0, 2.0, 5.0, 10.0)
"""The back-off before the next start, indexed by the number of exits within WITHIN_S, less one."""


class Verdict:
    """Whether a server that was started must be ended.

    VLLM itself notices that a worker is lost, but not while its core waits for that worker's answer: with a request in
    progress it blocks for VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS, five minutes, and so do its clients (measured with
    vllm 0.32; v1/executor/multiproc_executor.py, get_response).
    """

    def __init__(self, gate: Gate, pulse: Pulse, start_timeout: float) -> None:
        self._gate = gate
        self._pulse = pulse
        self._start_timeout = start_timeout
        self._began = time.monotonic()
        self._ready_at: float | None = None
        self._nodes: dict[str, str] = {}
        self._actors = 0

    @property
    def age(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    @property
    def served_for(self) -> float:
        """Seconds since it became ready; 0 before."""
        if self._pulse.ready and self._ready_at is None:
            self._ready_at = time.monotonic()
        return 0.0 if self._ready_at is None else time.monotonic() - self._ready_at

    def reason_to_end(self) -> str | None:
        """Why it must be ended; None while it need not be."""
        gate, pulse = self._gate, self._pulse
        # No GPU was in use when it was started, so a node whose GPUs are in use now is one of this engine.
        self._nodes |= {node: name for node, name in gate.nodes.items() if node in gate.used}
        lost = [name for node, name in self._nodes.items() if node not in gate.nodes]
        if lost:
            return f"lost node {'; node '.join(lost)}"
        if pulse.ready and gate.actors is not None:
            self._actors = max(self._actors, gate.actors)
            if gate.actors < self._actors:
                return f"{self._actors - gate.actors} of its {self._actors} Ray actors died"
        if pulse.stalled:
            return f"the engine stalled: no token for {pulse.silent_for:.0f} s although one was requested"
        if not pulse.ready and self.age > self._start_timeout:
            return f"did not become ready within {self.age:.0f} s"
        return None


class Launcher:
    """Runs one server after another."""

    def __init__(self, options: argparse.Namespace, key: str | None) -> None:
        self._options = options
        self._wake = threading.Event()
        self._told = threading.Event()
        self._state = StateFile(options.state)
        certificate = certificate_of(options.vllm_args)
        self._door = Door(options.port, certificate)
        self._endpoint = Endpoint(options.port, tls=bool(certificate), key=key, keyed=not options.no_api_key)
        self._remains = Remains(options.state.parents[1], SHM if options.own_memory else None)
        self._room = Room(**json.loads(options.room))
        self._ends: deque[float] = deque()
        self._deaths = 0

    def end(self) -> None:
        """Called on SIGTERM."""
        self._told.set()
        self._wake.set()

    def run(self) -> int:
        """Run until SIGTERM; returns the exit code."""
        self._door.open()
        self._state.phase("importing", "importing vLLM")
        watch = partial(start_watch, self._options.address, self._options.gate)
        gate = Gate(self._state, watch, self._wake)
        while not self._told.is_set():
            try:
                self._one_server(gate)
            except OpenError as error:
                self._stay_stopped("insecure", str(error))
            if self._crash_looped():
                text = f"it was started {len(self._ends)} times within {WITHIN_S / 60:.0f} minutes and exited each time"
                self._stay_stopped("given-up", text)
        tell("stopped", "received SIGTERM")
        return 0

    def _one_server(self, gate: Gate) -> None:
        """Run one server from its import to its end, and log its death. Raises OpenError."""
        server = Server(self._options.vllm_args, self._options.port, self._wake)
        pulse = Pulse(self._endpoint, self._options.stall_timeout, self._wake.set)
        why = None
        try:
            if self._until_it_may_start(server, gate):
                why = self._serve(server, gate, pulse)
        finally:
            pulse.stop()
            with suppress(OSError):
                self._door.open()
            server.end(first=kill_below if why and server.listening else None)
            stuck = self._remains.sweep(spare=gate.pid)
        if not self._told.is_set():
            self._ends.append(time.monotonic())
            self._deaths += 1
            self._state.set(deaths=self._deaths)
            left = f"; processes that can't be killed: {stuck}" if stuck else ""
            tell("died", (why or f"the vLLM server exited unexpectedly ({server.exit_words})") + left)

    def _until_it_may_start(self, server: Server, gate: Gate) -> bool:
        """Wait for the GPUs; False when the server exited first, or this process received SIGTERM."""
        recent = len(self._ends)
        not_before = time.monotonic() + PAUSES_S[min(recent, len(PAUSES_S)) - 1] if recent else 0.0
        told = ""
        while not (self._told.is_set() or server.has_ended):
            pauses = time.monotonic() < not_before
            closed_by = gate.closed_by or (self._room.lacking() if server.imported and not pauses else "")
            if closed_by:
                self._state.phase("waiting", closed_by)
                if closed_by != told:
                    told = closed_by
                    tell("waiting", told)
            elif pauses:
                self._state.phase("waiting", "back-off before the next start")
            elif not server.imported:
                self._state.phase("importing", "importing vLLM")
            elif self._ray_is_closed():
                return True
            self._pause()
        return False

    def _ray_is_closed(self) -> bool:
        """Whether Ray requires a token; False while it has not answered. Raises OpenError when it requires none."""
        try:
            check_ray(self._options.dashboard_port, self._options.address)
        except NotKnownError as error:
            self._state.phase("waiting", f"Ray has not reported its authentication mode yet: {error}")
            return False
        return True

    def _serve(self, server: Server, gate: Gate, pulse: Pulse) -> str | None:
        """Start the server and wait; returns why it must be ended, or None when it has exited."""
        self._remains.clear()
        server.go(gate.head)
        tell("starting", "all GPUs are available")
        self._state.phase("starting", pulse.detail)
        pulse.start()
        verdict = Verdict(gate, pulse, self._options.start_timeout)
        while not (self._told.is_set() or server.has_ended):
            if server.listening:
                self._door.close()
            if pulse.ready and self._state.current != "ready":
                tell("ready", f"the engine answered a completion, {verdict.age:.0f} s after its start")
            self._state.phase("ready" if pulse.ready else "starting", pulse.detail)
            if verdict.served_for > SERVED_S:
                self._ends.clear()
            if pulse.open:
                raise OpenError(pulse.open)
            why = verdict.reason_to_end()
            if why:
                return why
            self._pause()
        return None

    def _pause(self) -> None:
        self._wake.wait(TICK_S)
        self._wake.clear()

    def _crash_looped(self) -> bool:
        while self._ends and time.monotonic() - self._ends[0] > WITHIN_S:
            self._ends.popleft()
        return len(self._ends) >= DEATHS and not self._told.is_set()

    def _stay_stopped(self, phase: Literal["given-up", "insecure"], text: str) -> None:
        """Start no further server; a person has to fix the cause and restart the engine."""
        tell(phase, text)
        self._state.phase(phase, text)
        while not self._told.is_set():
            self._pause()


def certificate_of(vllm_args: list[str]) -> tuple[str, str] | None:
    """Paths of the certificate and its key in the server's arguments, where vllmray puts them as --flag=value."""
    values = dict(arg.split("=", 1) for arg in vllm_args if "=" in arg)
    if "--ssl-certfile" not in values:
        return None
    return values["--ssl-certfile"], values.get("--ssl-keyfile", values["--ssl-certfile"])


def api_key(root: Path) -> str | None:
    """A key that the server accepts (guard.py reads the same file); None where it requires none.

    Args:
        root: the folder that secrets/ is in.
    """
    try:
        return (root / "secrets/api_key").read_text().splitlines()[0]
    except FileNotFoundError:
        return None


def main(argv: list[str]) -> int:
    """Run until SIGTERM; returns the exit code."""
    parser = argparse.ArgumentParser(prog="launch.py")
    parser.add_argument("--address", required=True, help="HOST:PORT of Ray's GCS")
    parser.add_argument("--gate", required=True, help="JSON: the keyword arguments of watch.py's shortfall()")
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--stall-timeout", type=float, required=True, help="seconds without a token")
    parser.add_argument("--start-timeout", type=float, required=True, help="seconds from the start to the first token")
    parser.add_argument("--dashboard-port", type=int, required=True, help="of Ray's dashboard, on this host")
    parser.add_argument("--no-api-key", action="store_true", help="the endpoint answers without authentication")
    parser.add_argument("--room", default="{}", help="JSON: the arguments of room.Room")
    parser.add_argument("--own-memory", action="store_true", help="no other cluster uses /dev/shm")
    parser.add_argument("vllm_args", nargs="*")
    launcher = Launcher(parser.parse_args(argv), api_key(ROOT))
    signal.signal(signal.SIGTERM, lambda *_: launcher.end())
    return launcher.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
