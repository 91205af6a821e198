"""Events of containers, as a host itself recorded them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

HostAction = Literal["start", "die", "oom", "kill", "stop", "restart", "pause", "unpause"]
"""Docker's names: die is the end of the program, whatever the cause; stop and restart are commands that took effect;
kill is a signal that was sent.
"""


@dataclass(frozen=True, slots=True)
class HostEvent:
    """One event of a container."""

    at: float
    """Unix seconds, by the host's clock."""
    container: str
    """Its name."""
    action: HostAction
    labels: Mapping[str, str]
    exit_code: int | None = None
    """Of die."""
    signal: int | None = None
    """Of kill: the signal's number."""
