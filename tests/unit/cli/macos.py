"""`python macos.py ARGUMENT …`: the command line as a Mac's Python would run it, on this machine.

What macOS lacks is taken out of the standard library before vllmray is imported: names of Linux alone, prctl(2),
flags that only Linux has, and the folders /proc, /sys and /dev/shm. Nothing of vllmray is touched.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import signal
import socket
import sys
import sysconfig
import types
from typing import Any

LINUX_ALONE = {
    os: (
        *("sched_getaffinity", "sched_setaffinity", "sched_getscheduler", "sched_setscheduler", "sched_getparam"),
        *("pidfd_open", "memfd_create", "eventfd", "splice", "copy_file_range", "posix_fadvise", "posix_fallocate"),
        *("getxattr", "setxattr", "listxattr", "removexattr", "setresuid", "setresgid", "getresuid", "getresgid"),
        *("O_PATH", "O_TMPFILE", "O_DIRECT", "O_NOATIME", "unshare", "setns", "getrandom", "fdatasync"),
    ),
    signal: (
        "pidfd_send_signal",
        "SIGRTMIN",
        "SIGRTMAX",
        "SIGPOLL",
        "SIGPWR",
        "SIGSTKFLT",
        "sigtimedwait",
        "sigwaitinfo",
    ),
    socket: (
        "SO_PEERCRED",
        "SOCK_CLOEXEC",
        "SOCK_NONBLOCK",
        "AF_NETLINK",
        "AF_PACKET",
        "TCP_KEEPIDLE",
        "TCP_USER_TIMEOUT",
    ),
    select: ("epoll", "EPOLLIN"),
    fcntl: ("F_SETPIPE_SZ", "F_ADD_SEALS", "F_OFD_SETLK"),
}
LINUX_FOLDERS = ("/proc", "/sys", "/dev/shm")
LOOKS = ("stat", "lstat", "access", "readlink")


class Library(ctypes.CDLL):
    """The C library of macOS has no prctl."""

    def __getattr__(self, name: str) -> Any:
        if name == "prctl":
            raise AttributeError(f"dlsym(0xfffffffffffffffe, {name}): symbol not found")
        return super().__getattr__(name)


def is_of_linux(path: object) -> bool:
    return isinstance(path, str | os.PathLike) and f"{os.fspath(path)}/".startswith(
        tuple(f"{each}/" for each in LINUX_FOLDERS)
    )


def refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: what opens or lists a path of Linux alone finds nothing there."""
    if event in ("open", "os.listdir", "os.scandir") and arguments and is_of_linux(arguments[0]):
        raise FileNotFoundError(2, "No such file or directory", str(arguments[0]))


def blind(look: Any) -> Any:
    def looking(path: Any, *arguments: Any, **named: Any) -> Any:
        if is_of_linux(path):
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return look(path, *arguments, **named)

    return looking


def become() -> None:
    """From now on this process is on a Mac, as far as it can tell."""
    sysconfig.get_config_vars()  # kept from now on: those of macOS's build of Python are not here
    sys.platform = "darwin"
    for module, names in LINUX_ALONE.items():
        for name in names:
            module.__dict__.pop(name, None)
    vars(ctypes)["CDLL"] = Library
    for name in LOOKS:
        setattr(os, name, blind(getattr(os, name)))
    vars(os)["uname"] = lambda: os.uname_result(
        ("Darwin", "desk.local", "25.1.0", "Darwin Kernel Version 25.1.0", "arm64")
    )
    # Python's own module for the proxies of macOS's settings, which Python for Linux does not have.
    proxies = types.ModuleType("_scproxy")
    vars(proxies).update(_get_proxies=dict, _get_proxy_settings=lambda: {"exclude_simple": False})
    sys.modules["_scproxy"] = proxies
    # psutil has a module of its own for each system, and that of macOS needs what was compiled there.
    vars(sys)["modules"]["psutil"] = None
    sys.addaudithook(refuse)


if __name__ == "__main__":
    become()
    from vllmray.__main__ import main

    main()
