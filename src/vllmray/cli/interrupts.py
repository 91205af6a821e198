"""Ctrl-C: the first interrupts the command, which says what runs and how to go on; the second leaves at once.

At once, since what the first one has the command do may itself wait, for a host that does not answer say.
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
    """From now on the next Ctrl-C is the first; where it is ignored, as below nohup, it stays so."""
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
