"""The log of a run: a file in this user's state folder with what was reported, without secrets; the newest ten stay."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from vllmray.errors import VllmrayError

LOGGER = "vllmray.run"
FOLDER = "logs"
KEPT = 10


class RunLog(logging.Handler):
    """Keeps what is logged in memory until the first record of level INFO, and writes it to a file from then on: a
    command that only reads, or a dry run, leaves none.

    Args:
        state: this user's state folder.
        command: the command line.
        redact: removes secrets.
    """

    def __init__(self, state: Path, command: Sequence[str], redact: Callable[[str], str]) -> None:
        super().__init__(logging.DEBUG)
        self._state, self._redact = state, redact
        name = next((word for word in command if word.isalpha()), "vllmray")
        self._name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}-{name}.log"
        self._waiting = [f"{_now()} vllmray {' '.join(command)}"]
        self._file: int | None = None
        self.path: Path | None = None
        """Of the file, once it exists."""

    def emit(self, record: logging.LogRecord) -> None:
        self._waiting.append(f"{_now()} {record.getMessage()}")
        if self._file is not None or record.levelno >= logging.INFO:
            self.flush_to_file()

    def add(self, text: str, *, at_once: bool) -> None:
        """Add the error that ended the run; written at once if there is a file, or if at_once."""
        self._waiting.append(f"{_now()} {text}")
        if self._file is not None or at_once:
            self.flush_to_file()

    def flush_to_file(self) -> None:
        """Write what was kept; if the folder can't be used there is no log, and the command continues."""
        with suppress(OSError, VllmrayError):
            if self._file is None:
                self._file = self._opened()
            os.write(self._file, (self._redact("\n".join(self._waiting)) + "\n").encode(errors="replace"))
            self._waiting.clear()

    def _opened(self) -> int:
        from vllmray.secure_files import PrivateFolder

        folder = PrivateFolder(self._state, FOLDER)
        descriptor = folder.open(self._name)
        self.path = folder.path / self._name
        for old in newest(self._state)[KEPT:]:
            folder.remove(old.name)
        return descriptor

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
        super().close()


def newest(state: Path) -> list[Path]:
    """The existing logs, the newest first."""
    return sorted((state / FOLDER).glob("*.log"), reverse=True)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


@contextmanager
def logged(argv: Sequence[str]) -> Iterator[RunLog]:
    """The log of a command line."""
    from vllmray.cli.known_secrets import known_secrets
    from vllmray.config.settings import state_folder
    from vllmray.secrets.redact import redacted

    logger = logging.getLogger(LOGGER)
    log = RunLog(state_folder(), argv, lambda text: redacted(text, known_secrets(argv)))
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.addHandler(log)
    try:
        yield log
    finally:
        logger.removeHandler(log)
        log.close()
