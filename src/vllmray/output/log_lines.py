"""Lines of several logs, each with its host and role, a colour a host on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from vllmray.cluster.all_hosts import Line

COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "bright_red")
ROLE = len("worker")


def show_lines(lines: Iterable[Line], hosts: Sequence[str]) -> None:
    """Print them to standard output as they come.

    Args:
        hosts: names of all hosts, which determine colours and the width of the first column.
    """
    console = Console()
    width = max(map(len, hosts), default=0)
    for line in lines:
        prefix = f"{line.host:{width}} {line.role:{ROLE}} | "
        if not console.is_terminal:
            print(prefix + line.text, flush=True)
            continue
        colour = COLOURS[hosts.index(line.host) % len(COLOURS)]
        console.print(Text.assemble((prefix, colour), Text.from_ansi(line.text)), soft_wrap=True)
