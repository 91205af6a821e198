"""A shell script that runs on a host itself."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from vllmray.errors import HostError

LOCAL = ("sh", "-s")
"""The shell of this machine."""


def output_of(argv: Sequence[str], script: str, address: str, *, timeout: float) -> str:
    """The output of a shell that reads the script from its standard input.

    Args:
        argv: the shell, or what runs one elsewhere.
        address: of the host that it runs on.

    Raises:
        HostError: it failed, or did not end within that many seconds.
    """
    try:
        done = subprocess.run(
            argv, input=script, capture_output=True, text=True, errors="replace", timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise HostError(f"{address}: a shell script did not end within {timeout:g} s") from error
    if done.returncode:
        raise HostError(
            f"{address}: a shell script failed with exit code {done.returncode}",
            details=done.stderr.strip() or None,
            hint="Its user needs a POSIX shell there: a login that only forwards or runs one command will not do.",
        )
    return done.stdout
