"""Removes what an engine leaves behind when it exits: processes, shared memory, sockets. Runs before the next start.

Standard library only; part of what runs in the engine's container. A server that is killed leaves its core running
(vllm issue 55510), and each leaves segments in /dev/shm behind, also after SIGTERM.
"""

from __future__ import annotations

import ctypes
import os
import signal
import stat
import time
from contextlib import suppress
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
KILL_S = 30.0
"""How long to wait for killed processes; one that is blocked in the kernel, such as in a driver, may never exit."""
SHM = Path("/dev/shm")  # nosec B108 # cleared only where it is this cluster's own


class Remains:
    """Leftovers of the servers that this process starts.

    Args:
        folder: where vLLM's processes have their sockets (VLLM_RPC_BASE_PATH).
        memory: /dev/shm where it is this cluster's alone, so that all of it may be removed while no engine runs.
    """

    def __init__(self, folder: Path, memory: Path | None) -> None:
        self._folder = folder
        self._memory = memory
        # A server's orphans become our children, and so are found (prctl(2)).
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def sweep(self, *, spare: int) -> list[int]:
        """Kill every descendant of this process except `spare`; returns those that could not be killed."""
        deadline = time.monotonic() + KILL_S
        while orphans := [pid for pid in _children().get(os.getpid(), ()) if pid != spare]:
            for pid in orphans:
                kill_below(pid)
                _kill(pid)
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
            if time.monotonic() > deadline:
                return orphans
            time.sleep(0.02)
        return []

    def clear(self) -> None:
        """Remove shared memory and sockets; only while no engine runs, here or as actors on the head."""
        paths = [*self._memory.iterdir()] if self._memory else []
        with suppress(OSError):
            paths += [path for path in self._folder.iterdir() if stat.S_ISSOCK(path.lstat().st_mode)]
        for path in paths:
            with suppress(OSError):
                path.unlink()


def kill_below(pid: int) -> None:
    """Kill all descendants of a process, but not the process itself."""
    children = _children()
    todo = [pid]
    while todo:
        for child in children.get(todo.pop(), ()):
            _kill(child)
            todo.append(child)


def _children() -> dict[int, list[int]]:
    """Processes by their parent (proc(5), /proc/PID/stat)."""
    found: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            found.setdefault(parent, []).append(int(path.parent.name))
    return found


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
