"""The processes of a node: found, ended, and nothing else touched.

A node's first process leads a session of its own, and whatever it starts stays in that session; a process that left it
still has the node's mark in its environment. Both are needed: Ray and vLLM overwrite the environment of some of their
processes with a title (setproctitle), and what daemonizes leaves its session. A number is never trusted alone: a
session whose leader is another process than the one recorded is somebody else's (pids are used again, but not while a
session still has that number; man 7 credentials).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import psutil

from vllmray.hosts.native.records import NodeFolder, NodeSpec, NodeState, Process, SharedMemory

MARK = "VLLMRAY_NODE"
SHM = Path("/dev/shm")  # nosec B108 # looked at, and cleared of this user's own; nothing is made there
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
SAME_START_S = 0.02
"""The kernel counts in hundredths of a second."""


def identify(pid: int) -> Process:
    """A living process, so that it can be distinguished from a later one of that number."""
    return Process(pid, _started(psutil.Process(pid)), BOOT_ID.read_text().strip())


def _started(process: psutil.Process) -> float:
    """Seconds since the boot; psutil adds the boot's time by the clock of now to it (psutil 7.2, create_time)."""
    return process.create_time() - psutil.boot_time()


def _is(process: psutil.Process, known: Process) -> bool:
    """Whether a process of that number is the one that is known."""
    same_boot = BOOT_ID.read_text().strip() == known.boot
    return same_boot and abs(_started(process) - known.started) <= SAME_START_S


def has_ended(process: psutil.Process) -> bool:
    """Whether nothing of it runs any more, though its parent may not have reaped it yet.

    A zombie may have threads that are still ending, and holds its sockets until the last one has (proc(5), Threads).
    Raises psutil.NoSuchProcess when it is gone altogether.
    """
    return process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1


def living(process: Process | None) -> psutil.Process | None:
    """The process itself if it still runs, else None."""
    if process is None:
        return None
    with suppress(psutil.Error):
        found = psutil.Process(process.pid)
        return found if _is(found, process) and not has_ended(found) else None
    return None


def members(node_id: str, leader: Process | None) -> list[psutil.Process]:
    """Every living process of a node."""
    found = []
    ours = os.getuid()
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.uids().real != ours or process.pid == os.getpid() or has_ended(process):
                continue
            if _marked(process) == node_id or (leader and _in_session(process, leader)):
                found.append(process)
    return found


def _marked(process: psutil.Process) -> str | None:
    """The node named in a process's environment; "" when the environment is empty."""
    environment = process.environ()
    return environment.get(MARK) if environment else ""


def _in_session(process: psutil.Process, leader: Process) -> bool:
    if os.getsid(process.pid) != leader.pid or _started(process) < leader.started - SAME_START_S:
        return False
    if psutil.pid_exists(leader.pid):
        return _is(psutil.Process(leader.pid), leader)
    return _marked(process) == ""  # a marked one was counted before; one with another environment is not ours


def end(node: Callable[[], list[psutil.Process]], wait: Callable[[list[psutil.Process]], None]) -> None:
    """Kill all of them, and those that they start meanwhile.

    Args:
        node: finds the processes that run now.
        wait: waits a moment for processes to go.
    """
    while left := node():
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        wait(left)


def held_memory(processes: Iterable[psutil.Process]) -> set[str]:
    """Names in /dev/shm that these processes have mapped (proc(5), /proc/PID/maps)."""
    names = set()
    for process in processes:
        with suppress(OSError):
            for line in Path(f"/proc/{process.pid}/maps").read_text().splitlines():
                _, found, name = line.partition(f"{SHM}/")
                if found and not name.endswith(" (deleted)"):
                    names.add(name)
    return names


def note_memory(folder: NodeFolder, spec: NodeSpec, state: NodeState) -> None:
    """Add what the node's processes hold in /dev/shm now to what is known of it."""
    known = folder.shared_memory()
    held = held_memory(members(spec.id, state.main)) - known.before
    if not held <= known.held:
        folder.write_shared_memory(SharedMemory(known.before, known.held | held))


def free_memory(folder: NodeFolder) -> None:
    """Remove the shared memory that the node's processes held and nobody holds now.

    VLLM leaves segments behind, also when it is ended in the proper way; a container takes its /dev/shm with it.
    """
    names = {name for name in folder.shared_memory().held if (SHM / name).exists()}
    if not names:
        return
    ours = os.getuid()
    for name in names - held_memory(psutil.process_iter()):
        with suppress(OSError):
            if (SHM / name).stat().st_uid == ours:
                (SHM / name).unlink()
