"""Ctrl-C: the first interrupts the command, which says what is running and how to continue; the second exits at once.

At once, because the clean-up after the first may itself wait, for example for a host that does not answer.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from types import FrameType

from vllmray.errors import UserInterruptError

SHOW_CURSOR = "\r\n\x1b[?25h"  # a live list of steps hides it (ECMA-48, DECTCEM), and nothing else will show it now
LEFT = "stopped without cleaning up; `vllmray status` shows what is running, and the same command continues"


def arm() -> None:
    """Treat the next Ctrl-C as the first one; where SIGINT is ignored, as under nohup, it stays ignored."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, _leave)
    raise KeyboardInterrupt


def _leave(_number: int, _frame: FrameType | None) -> None:
    """No clean-up runs: not even Python's own, which waits for threads."""
    with suppress(OSError, ValueError):
        cursor = SHOW_CURSOR if sys.stderr.isatty() else ""
        os.write(sys.stderr.fileno(), f"{cursor}{LEFT}\n".encode())
    os._exit(UserInterruptError.exit_code)
