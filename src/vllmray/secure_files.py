"""Reads settings files only if nobody else can write them, and secrets only if nobody else can read them.

A path of this user's own (settings, a key) may lead through symbolic links, as the user made them. Below the state
folder, where secrets and records are, none is followed.
"""

from __future__ import annotations

import ctypes
import grp
import os
import pwd
import resource
import stat
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vllmray.errors import ConfigError

PR_SET_DUMPABLE = 4  # Linux, include/uapi/linux/prctl.h


def leave_no_core() -> None:
    """Disable core dumps of this process, and access to its memory by others of this user (prctl(2)).

    On Linux programs that it starts are not affected: the mark ends with execve. Other systems have no such mark; there
    the limit for core files is 0, for what this process starts too (setrlimit(2)).
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    else:
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def read_trusted(path: Path) -> str:
    """The text of a file that only this user, or root, can have written.

    Raises:
        ConfigError: others can write it.
        OSError, UnicodeDecodeError: as reading raises them.
    """
    return _read(path, hidden=False)


def read_secret(path: Path) -> str:
    """As read_trusted, for a file that nobody else can read either."""
    return _read(path, hidden=True)


def _read(path: Path, *, hidden: bool) -> str:
    def check(found: os.stat_result) -> None:
        if not _is_null(found):  # --env-file /dev/null, whose contents nobody can change
            _refuse_unless_file(path, found)
            _refuse(str(path), found)
        if hidden and found.st_mode & 0o077:
            raise ConfigError(f"{path} can be read by others", hint=f"Make it readable by you alone: chmod 600 {path}")

    return _text(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), check)


def _text(descriptor: int, check: Callable[[os.stat_result], None]) -> str:
    """What can be read there, after the check; closes it."""
    try:
        check(os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    with os.fdopen(descriptor, encoding="utf-8") as file:
        return file.read()


def _is_null(found: os.stat_result) -> bool:
    """Its number differs between systems; nobody but root can put something else in its place."""
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == os.stat(os.devnull).st_rdev


def _refuse_unless_file(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(f"{path} is not a regular file")


def _refuse(path: str, found: os.stat_result) -> None:
    """Raises ConfigError for what others can write."""
    if found.st_uid not in _trusted_users():
        raise ConfigError(
            f"{path} belongs to another user",
            hint=f"Check its contents, then take ownership: chown {os.geteuid()} {path}",
        )
    if found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and not _is_private_group(found.st_gid)):
        raise ConfigError(f"{path} can be written by others", hint=f"Check its contents, then: chmod go-w {path}")


def _trusted_users() -> set[int]:
    """This user, root, and who called root here (sudo(8), SUDO_UID, is set by sudo itself)."""
    users = {os.geteuid(), 0}
    if os.geteuid() == 0 and os.environ.get("SUDO_UID", "").isdigit():
        users.add(int(os.environ["SUDO_UID"]))
    return users


def _is_private_group(group: int) -> bool:
    """A group of its user's name with nobody else in it, as many distributions make one for each user."""
    with suppress(KeyError):
        found = grp.getgrgid(group)
        user = pwd.getpwuid(os.geteuid())
        return found.gr_name == user.pw_name and not set(found.gr_mem) - {user.pw_name}
    return False


class PrivateFolder:
    """A folder for this user alone, created on the first write; every component of its path is checked.

    Args:
        root: where this user's state is; neither it nor what is below may be a symbolic link or belong to another user.
        names: folders below it, from the outermost.
    """

    def __init__(self, root: Path, *names: str) -> None:
        self._root = root
        self._names = names
        self.path = root.joinpath(*names)

    def check(self) -> None:
        """Raises ConfigError unless the folder is safe, or not there yet."""
        with suppress(FileNotFoundError), self._opened():
            pass

    def read(self, name: str) -> str | None:
        """The text of a file in it, or None."""
        path = self.path / name

        def check(found: os.stat_result) -> None:
            _refuse_unless_file(path, found)
            _refuse(str(path), found)
            if found.st_mode & 0o077:
                raise ConfigError(
                    f"{path} can be read by others",
                    hint=f"Others may have read it: delete it, and a new one is generated (rm {path}).",
                )

        with suppress(FileNotFoundError), self._opened() as folder:
            try:
                return _text(_open(path, os.O_NONBLOCK, at=(name, folder)), check)
            except UnicodeDecodeError:
                raise ConfigError(
                    f"{path} is not a text file", hint=f"Check its contents, or delete it: rm {path}"
                ) from None
        return None

    def write(self, name: str, text: str) -> None:
        """Write a file atomically, replacing an existing one."""
        with self._opened(make=True) as folder, _draft(folder, text) as draft:
            os.replace(draft, name, src_dir_fd=folder, dst_dir_fd=folder)

    def write_first(self, name: str, text: str) -> str:
        """Write a file unless it exists; returns the text of the file that is there then, which may be empty."""
        with self._opened(make=True) as folder, _draft(folder, text) as draft, suppress(FileExistsError):
            os.link(draft, name, src_dir_fd=folder, dst_dir_fd=folder)
        return self.read(name) or ""

    def open(self, name: str) -> int:
        """A descriptor of a file in it, made unless it is there, to read, write and lock; the caller closes it."""
        path = self.path / name
        with self._opened(make=True) as folder:
            descriptor = _open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, at=(name, folder))
        try:
            found = os.fstat(descriptor)
            _refuse_unless_file(path, found)
            _refuse(str(path), found)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def has(self, name: str, descriptor: int) -> bool:
        """Whether that open file is the one of that name in it."""
        with suppress(FileNotFoundError), self._opened() as folder:
            there, ours = os.stat(name, dir_fd=folder, follow_symlinks=False), os.fstat(descriptor)
            return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)
        return False

    def remove(self, name: str) -> None:
        """Take a file out of it; no error when it is not there."""
        with suppress(FileNotFoundError), self._opened() as folder:
            os.unlink(name, dir_fd=folder)

    @contextmanager
    def _opened(self, *, make: bool = False) -> Iterator[int]:
        """A descriptor of the folder, reached step by step."""
        if make:
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._root
        descriptor = _open(path, os.O_DIRECTORY, at=(str(path), None))
        try:
            _refuse(str(path), os.fstat(descriptor))
            for name in self._names:
                path /= name
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(name, 0o700, dir_fd=descriptor)
                inner = _open(path, os.O_DIRECTORY, at=(name, descriptor))
                os.close(descriptor)
                descriptor = inner
                _refuse(str(path), os.fstat(descriptor))
            yield descriptor
        finally:
            os.close(descriptor)


@contextmanager
def _draft(folder: int, text: str) -> Iterator[str]:
    """A new file with that text, under a name of its own; what is left of it at the end is removed."""
    name = f".{uuid.uuid4().hex}"
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        yield name
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)


def _open(path: Path, flags: int, *, at: tuple[str, int | None]) -> int:
    """Open without following a link at the last step.

    Raises:
        ConfigError: it is a link, or no folder where one should be.
        FileNotFoundError: it is not there.
    """
    name, folder = at
    try:
        return os.open(name, os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o600, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError as error:
        what = "is a symbolic link" if path.is_symlink() else f"can't be used: {error.strerror}"
        raise ConfigError(f"{path} {what}", hint=f"It must belong to you alone. Check it: ls -ld {path}") from error
