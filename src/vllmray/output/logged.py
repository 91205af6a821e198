"""A reporter that also logs what is reported, for the run's log file (cli/run_log.py)."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Self

from vllmray.reporter import Board, Cell, PassedOn, Reporter, Step


class LoggedReporter:
    """Passes everything on. A step is of level INFO, which begins the file; the rest is DEBUG.

    Args:
        prefix: before each line of the log.
    """

    def __init__(self, inner: Reporter, logger: logging.Logger, prefix: str = "") -> None:
        self._inner, self._logger, self._prefix = inner, logger, prefix

    def step(self, title: str) -> Step:
        return _LoggedStep(self._inner.step(title), self._prefix + title, self._logger)

    def note(self, text: str) -> None:
        self._logger.debug("%s%s", self._prefix, text)
        self._inner.note(text)

    def warning(self, text: str) -> None:
        self._logger.debug("%swarning: %s", self._prefix, text)
        self._inner.warning(text)


class LoggedBoard(LoggedReporter):
    """The same for a board and its cells, whose lines begin with their host and phase."""

    def __init__(self, inner: Board, logger: logging.Logger) -> None:
        super().__init__(inner, logger)
        self._board = inner

    def cell(self, host: str, phase: str) -> Cell:
        return _LoggedCell(self._board.cell(host, phase), self._logger, f"{host}, {phase}: ")


class _LoggedCell(LoggedReporter):
    def __init__(self, cell: Cell, logger: logging.Logger, prefix: str) -> None:
        super().__init__(cell, logger, prefix)
        self._cell = cell

    def __enter__(self) -> Self:
        self._logger.info("%sbegins", self._prefix)
        self._cell.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._logger.info("%s%s", self._prefix, "done" if kind is None else f"failed: {error}")
        self._cell.__exit__(kind, error, trace)


class _LoggedStep(PassedOn):
    def __init__(self, inner: Step, title: str, logger: logging.Logger) -> None:
        super().__init__(inner)
        self._title, self._logger = title, logger

    def _log(self, text: str) -> None:
        self._logger.info("%s: %s", self._title, text)

    def change(self, detail: str) -> None:
        self._log(detail)
        super().change(detail)

    def event(self, text: str) -> None:
        self._log(text)
        super().event(text)

    def bound(self, seconds: float) -> None:
        self._log(f"waiting up to {seconds:g} s")
        super().bound(seconds)

    def result(self, detail: str) -> None:
        self._log(detail)
        super().result(detail)

    def __enter__(self) -> Self:
        self._log("begins")
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._log("done" if kind is None else f"failed: {kind.__name__}")
        super().__exit__(kind, error, trace)
