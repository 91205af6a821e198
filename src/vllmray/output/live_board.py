"""A table of hosts and phases, redrawn in place on a terminal."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from vllmray.output.live import LiveReporter
from vllmray.output.progress import in_seconds, outcome
from vllmray.reporter import Cell, SilentStep, Step

ROWS = 20
"""Hosts that are shown; of more, those that are busy or failed come first."""
MARKS = {"running": ("…", "cyan"), "done": ("ok", "green"), "failed": ("failed", "red"), "stopped": ("--", "yellow")}


@dataclass(slots=True)
class _State:
    """One host in one phase."""

    began: float = field(default_factory=time.monotonic)
    ended: float | None = None
    outcome: str = "running"
    now: str = ""
    """The current step, and where it is."""

    @property
    def seconds(self) -> float:
        return (self.ended or time.monotonic()) - self.began


class LiveBoard(LiveReporter):
    """A row a host, a column a phase; below, what each busy host does now. Notes and warnings stay as lines above.

    A context manager: the table stays on the screen when it ends.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._states: dict[str, dict[str, _State]] = {}
        self._phases: dict[str, None] = {}
        self._lock = threading.Lock()
        self._live = Live(get_renderable=self.render, console=console, refresh_per_second=8)

    def cell(self, host: str, phase: str) -> Cell:
        with self._lock:
            self._phases[phase] = None
            state = self._states.setdefault(host, {}).setdefault(phase, _State())
            state.outcome, state.ended = "running", None  # a phase may come back to a host
        return _LiveCell(self, host, state)

    def render(self) -> RenderableType:
        """The table, and the current step of each busy host."""
        with self._lock:
            states = {host: dict(phases) for host, phases in self._states.items()}
            columns = list(self._phases)
        table = Table("host", *columns, box=None, padding=(0, 2, 0, 0), header_style="dim")
        shown = sorted(states, key=lambda host: _weight(states[host]))[:ROWS]
        for host in (host for host in states if host in shown):
            table.add_row(host, *(_cell(states[host].get(phase)) for phase in columns))
        lines: list[RenderableType] = [table]
        if len(states) > len(shown):
            lines.append(Text(f"and {len(states) - len(shown)} more hosts", style="dim"))
        for host in shown:
            busy = [state for state in states[host].values() if state.outcome == "running" and state.now]
            lines += [Text(f"  {host}: {state.now}", style="dim", overflow="ellipsis", no_wrap=True) for state in busy]
        return Group(*lines)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._live.stop()


def _weight(phases: dict[str, _State]) -> int:
    """Failed hosts first, then busy ones."""
    outcomes = {state.outcome for state in phases.values()}
    return 0 if "failed" in outcomes else 1 if "running" in outcomes else 2


def _cell(state: _State | None) -> Text:
    if state is None:
        return Text("")
    mark, style = MARKS[state.outcome]
    took = f" {in_seconds(state.seconds)}" if state.seconds >= 1 else ""
    return Text.assemble((mark, style), (took, "dim"))


class _LiveCell:
    def __init__(self, board: LiveBoard, host: str, state: _State) -> None:
        self._board, self._host, self._state = board, host, state

    def step(self, title: str) -> Step:
        return _LiveBoardStep(self._state, title)

    def note(self, text: str) -> None:
        self._board.note(text)

    def warning(self, text: str) -> None:
        self._board.warning(f"{self._host}: {text}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._state.ended = time.monotonic()
        self._state.outcome = outcome(kind)


class _LiveBoardStep(SilentStep):
    """What it says is the host's line; its bound is not shown, since the column shows how long it has taken."""

    def __init__(self, state: _State, title: str) -> None:
        self._state, self._title = state, title
        self._parts: dict[str, tuple[int, int]] = {}
        self._say("")

    def _say(self, detail: str) -> None:
        self._state.now = f"{self._title}: {detail}" if detail else self._title

    def change(self, detail: str) -> None:
        self._say(detail)

    def glimpse(self, text: str) -> None:
        self._say(Text.from_ansi(text).plain)

    def event(self, text: str) -> None:
        self._say(text)

    def part(self, name: str, *, done: int, total: int | None, status: str) -> None:
        if total:
            self._parts[name] = (done, total)
            all_done, all_total = (sum(part[index] for part in self._parts.values()) for index in (0, 1))
            unit, word = (1e9, "GB") if all_total >= 1e9 else (1e6, "MB")
            self._say(f"{all_done / unit:.1f} of {all_total / unit:.1f} {word} {status}")

    def result(self, detail: str) -> None:
        self._say(detail)
