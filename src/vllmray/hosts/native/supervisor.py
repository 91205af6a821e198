"""Keeps one node running, as a container engine would: `python -m vllmray.hosts.native.supervisor FOLDER`.

It detaches itself, starts the node's process at the head of a session, records its state, and starts it
again with Docker's backoff when the node's restart policy says so (moby 20.10, restartmanager/restartmanager.go: 100
ms, doubled at each restart up to a minute, from the beginning again after ten seconds of running). It is the parent of
whatever the node's processes orphan, and reaps it (prctl(2), PR_SET_CHILD_SUBREAPER). When the node's own process
ends, everything else of the node is killed, as the end of a container's first process does.

SIGTERM ends the node and then the supervisor; SIGUSR1 ends the node and starts it anew at once, also in the middle of a
pause. `down` needs no cooperation: it kills the supervisor first.

Starts and ends of a node with a restart policy are in its log too, in lines of journal.py.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import shutil
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from vllmray.hosts.native.log import write
from vllmray.hosts.native.processes import SHM, end, free_memory, identify, members, note_memory
from vllmray.hosts.native.records import NodeFolder, NodeSpec, NodeState
from vllmray.payload.journal import Kind, exit_words

PR_SET_CHILD_SUBREAPER = 36
LOOK_S = 1.0
FIRST_BACKOFF_S, LONGEST_BACKOFF_S, RAN_WELL_S = 0.1, 60.0, 10.0
NOT_FOUND = 127
COMMANDS = {signal.SIGTERM, signal.SIGUSR1}
SIGNALS = {signal.SIGCHLD, *COMMANDS}


class Supervisor:
    """See the module."""

    def __init__(self, folder: NodeFolder, spec: NodeSpec) -> None:
        self._folder = folder
        self._spec = spec
        self._started_before = bool(folder.state().started_at)
        self._state = NodeState(supervisor=identify(os.getpid()))
        self._ending = self._anew = False
        self._become()
        self._known_memory = [folder.shared_memory().before] * 2

    def start(self) -> None:
        """Start the node's process; raises OSError when it can't be."""
        argv = self._spec.argv
        program = shutil.which(argv[0], path=self._spec.env["PATH"])
        if program is None:
            raise FileNotFoundError(f"{argv[0]}: not found in PATH: {self._spec.env['PATH']}")
        if self._started_before:
            number = self._state.restarts
            self._tell("restarted", f"by its supervisor, restart {number}" if number else "by a command")
        log = str(self._folder.log)
        pid = os.posix_spawn(
            program,
            argv,
            self._spec.env,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            setsigmask=[],
        )
        self._become(status="running", main=identify(pid), started_at=datetime.now(UTC).isoformat())
        self._started_before = True

    def _become(self, **changes: object) -> None:
        self._state = self._state.becoming(**changes)
        self._folder.write_state(self._state)

    def run(self) -> None:
        """Until the node has ended for good."""
        backoff = FIRST_BACKOFF_S
        while True:
            began = time.monotonic()
            exit_code = self._until_it_ends() if self._state.status == "running" else NOT_FOUND
            self._become(ended_at=datetime.now(UTC).isoformat())
            self._sweep()
            if self._ending or not (self._spec.restart or self._anew):
                self._become(status="exited", exit_code=exit_code)
                self._tell("exited", exit_words(exit_code))
                return
            backoff = FIRST_BACKOFF_S if time.monotonic() - began >= RAN_WELL_S else backoff
            if not self._pause_before_next(exit_code, backoff):
                self._become(status="exited")
                return
            backoff = FIRST_BACKOFF_S if self._anew else min(backoff * 2, LONGEST_BACKOFF_S)
            self._anew = False
            self.start_or_say_why()

    def _pause_before_next(self, exit_code: int, backoff: float) -> bool:
        """Whether the node is to be started again now; no pause when that was asked for."""
        restarts = 0 if self._anew else self._state.restarts + 1
        self._become(status="restarting", exit_code=exit_code, restarts=restarts)
        when = "now" if self._anew else f"in {backoff:g} s"
        self._tell("exited", f"{exit_words(exit_code)}; starting it again {when}")
        if self._anew:
            return True
        command = self._wait(backoff)
        if command == signal.SIGUSR1:
            self._anew = True
            self._become(restarts=0)
        return command != signal.SIGTERM

    def start_or_say_why(self) -> None:
        """As a container's init does with a program that is not found: a line in the log, and exit code 127."""
        try:
            self.start()
        except OSError as error:
            with self._folder.log.open("a") as log:
                log.write(f"{error}\n")

    def _until_it_ends(self) -> int:
        main = self._state.main
        while main:
            got = signal.sigtimedwait(SIGNALS, LOOK_S)
            if got and got.si_signo in COMMANDS:
                self._ending = self._ending or got.si_signo == signal.SIGTERM
                self._anew = not self._ending
                os.kill(main.pid, signal.SIGTERM)
            ended = self._reap(main.pid)
            if ended is not None:
                return ended
            self._look_at_memory()
        return NOT_FOUND

    @staticmethod
    def _reap(main: int) -> int | None:
        """Collect every child that ended; the exit code of the node's own process when it is among them."""
        code = None
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return code
            if pid == 0:
                return code
            if pid == main:
                ended = os.waitstatus_to_exitcode(status)
                code = ended if ended >= 0 else 128 - ended

    def _look_at_memory(self) -> None:
        """Find out whose a new name in /dev/shm is, at the two checks after it appeared: each costs milliseconds."""
        names = {path.name for path in SHM.iterdir()} if SHM.is_dir() else set()
        if names - self._known_memory[0]:
            note_memory(self._folder, self._spec, self._state)
        self._known_memory = [self._known_memory[1], names]

    def _sweep(self) -> None:
        note_memory(self._folder, self._spec, self._state)
        end(lambda: members(self._spec.id, self._state.main), lambda _left: self._pause())
        free_memory(self._folder)

    def _pause(self) -> None:
        signal.sigtimedwait({signal.SIGCHLD}, 0.05)
        self._reap(0)

    @staticmethod
    def _wait(seconds: float) -> int | None:
        """The command that came within that time."""
        got = signal.sigtimedwait(COMMANDS, seconds)
        return got.si_signo if got else None

    def _tell(self, kind: Kind, text: str) -> None:
        """Not for a node without a restart policy, such as a probe: its log is the program's output alone."""
        if self._spec.restart:
            write(self._folder, kind, text)


def _raise_limits(spec: NodeSpec) -> None:
    """As far as this user may: the hard limit stays as it is."""
    names = {"nofile": resource.RLIMIT_NOFILE, "memlock": resource.RLIMIT_MEMLOCK}
    for name, wanted in spec.limits.items():
        _, hard = resource.getrlimit(names[name])
        bounds = [limit for limit in (wanted, hard) if limit != resource.RLIM_INFINITY]
        resource.setrlimit(names[name], (min(bounds, default=resource.RLIM_INFINITY), hard))


def _detach(ready: int) -> None:
    """Go on in a child without a terminal; the parent exits, and `ready` stays open for the result of the start."""
    if os.fork():
        os._exit(0)
    os.setsid()
    silent = os.open("/dev/null", os.O_RDWR)
    for stream in (0, 1, 2):
        if stream != ready:
            os.dup2(silent, stream)


def main(folder: Path) -> None:
    """Start the node, print the result on standard output (JSON: {"error": str | null}), and supervise it."""
    ready = os.dup(1)
    _detach(ready)
    node = NodeFolder(folder)
    spec = node.spec()
    if spec is None:
        os._exit(1)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    os.chdir(folder)
    supervisor = Supervisor(node, spec)
    error = None
    try:
        _raise_limits(spec)
        if spec.init:
            supervisor.start_or_say_why()
        else:
            supervisor.start()
    except (OSError, ValueError) as problem:
        error = str(problem)
    os.write(ready, json.dumps({"error": error}).encode() + b"\n")
    os.close(ready)
    if error is None:
        supervisor.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
