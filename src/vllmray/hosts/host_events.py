"""What a host itself saw happen to containers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

HostAction = Literal["start", "die", "oom", "kill", "stop", "restart", "pause", "unpause"]
"""As Docker calls them: die is the end of the program, however it came; stop and restart are commands that were obeyed;
kill is a signal that was sent.
"""


@dataclass(frozen=True, slots=True)
class HostEvent:
    """What the host itself saw happen to a container."""

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
