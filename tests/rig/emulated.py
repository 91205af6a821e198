"""A root folder of arm64 on a machine of another architecture: its programs are run by QEMU's user-mode emulation.

The kernel is told which programs QEMU runs (binfmt_misc) in a user namespace of our own, so nothing of the machine is
changed, and the registration goes with the last process there. That takes Linux 6.7 (kernel commit 21ca59b365c0,
"binfmt_misc: enable sandboxed mounts") and root.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

# linux/sched.h, linux/mount.h, linux/prctl.h
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID = 0x20000, 0x10000000, 0x20000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 0x1000, 0x4000, 0x40000
PR_SET_PDEATHSIG = 1
# A 64-bit little-endian ELF file, executable or shared, for EM_AARCH64 (0xb7). F: the interpreter is opened now, so it
# need not be in the root folder; P: it gets argv[0] as well, as Debian's QEMU expects.
MAGIC = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
BINFMT = Path("/proc/sys/fs/binfmt_misc")
OLDEST_KERNEL = (6, 7)
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ALL_IDS = "0 0 4294967295"

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Root:
    """The folder, and the emulator: a static program of this machine."""

    folder: Path
    emulator: Path


def obstacle() -> str | None:
    """Why this machine can't do it; None when it can."""
    release = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
    if os.geteuid() != 0:
        return "it takes root"
    if release < OLDEST_KERNEL:
        return f"Linux {os.uname().release} has no binfmt_misc for user namespaces: 6.7 is the first that has"
    return None if "binfmt_misc" in Path("/proc/filesystems").read_text() else "this kernel has no binfmt_misc"


def run(
    root: Root,
    argv: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    shown: Mapping[Path, str] | None = None,
) -> int:
    """Run a program of the root folder in it, with this machine's network and with /tmp of its own; its exit code.

    Args:
        environment: besides a PATH, HOME and LC_ALL.
        shown: folders of this machine -> where they are seen there; read-only, but for those below the root folder.
    """
    variables = {"PATH": PATH, "HOME": "/root", "LC_ALL": "C.UTF-8"} | dict(environment or {})

    def inside() -> NoReturn:
        _mount_all(root, shown or {})
        os.chroot(root.folder)
        os.chdir("/")
        _be_init(lambda: os.execvpe(argv[0], list(argv), variables))

    return _in_namespaces(inside)


def _in_namespaces(inside: Callable[[], NoReturn]) -> int:
    """Call it as the first process of new user, mount and PID namespaces, where each user is who he is here."""
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        with _ending():
            _call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL)
            _call("unshare", CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID)
            os.write(ready[1], b".")
            os.close(go[1])
            if not os.read(go[0], 1):
                raise RuntimeError("the users of the namespace could not be mapped")
            os.setgid(0)
            os.setuid(0)
            first = os.fork()
            if first == 0:
                _call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL)
                inside()
            os._exit(_exit_code(os.waitpid(first, 0)[1]))
    os.close(ready[1])
    os.close(go[0])
    if os.read(ready[0], 1):
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{child}/{name}").write_text(ALL_IDS)
        os.write(go[1], b".")
    os.close(go[1])
    os.close(ready[0])
    return _exit_code(os.waitpid(child, 0)[1])


class _ending:  # noqa: N801  # reads as the statement that it is
    """A forked process ends here, whatever happens: it must not run on in its parent's code."""

    def __enter__(self) -> None:
        """Nothing to do before."""

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        os.write(2, f"emulated root: {error!r}\n".encode())
        os._exit(125)


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _mount_all(root: Root, shown: Mapping[Path, str]) -> None:
    _mount("none", "/", flags=MS_REC | MS_PRIVATE)
    _mount("binfmt_misc", BINFMT, kind="binfmt_misc")
    (BINFMT / "register").write_text(f":vllmray-arm64:M::{MAGIC}:{MASK}:{root.emulator}:PF")
    for name in ("dev", "sys"):
        _mount(f"/{name}", root.folder / name, flags=MS_BIND | MS_REC)
    _mount("proc", root.folder / "proc", kind="proc")
    for name in ("tmp", "dev/shm", "run"):
        _mount("tmpfs", root.folder / name, kind="tmpfs", data="mode=1777" if name != "run" else "mode=755")
    for here, there in shown.items():
        place = root.folder / there.lstrip("/")
        place.mkdir(parents=True, exist_ok=True)
        _mount(str(here), place, flags=MS_BIND)
        if not here.is_relative_to(root.folder):
            _mount(str(here), place, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)


def _be_init(start: Callable[[], Any]) -> NoReturn:
    """As the first process: start the program, wait for whatever is orphaned, and end with the program's exit code.

    What is left of it then is killed by the kernel.
    """
    program = os.fork()
    if program == 0:
        start()
    while True:
        ended, status = os.wait()
        if ended == program:
            os._exit(_exit_code(status))


def _mount(
    source: str, target: str | Path, *, kind: str | None = None, flags: int = 0, data: str | None = None
) -> None:
    texts = (None if text is None else text.encode() for text in (source, str(target), kind))
    _call("mount", *texts, ctypes.c_ulong(flags), data.encode() if data else None)


def _call(name: str, *arguments: Any) -> None:
    if getattr(_libc, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
