"""Progress on a terminal: finished steps stay as lines, the current one is redrawn below them."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from vllmray.output.progress import in_seconds
from vllmray.reporter import Step

PARTS_SHOWN = 12


class LiveReporter:
    """Finished steps stay as lines; the current one is redrawn below them."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @classmethod
    def on_standard_error(cls) -> Self:
        return cls(Console(stderr=True))

    def step(self, title: str) -> Step:
        return _LiveStep(self._console, title)

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def warning(self, text: str) -> None:
        self._console.print(Text(f"! {text}", style="yellow"), soft_wrap=True)


class _LiveStep:
    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._began = time.monotonic()
        self._detail = ""
        self._glimpse = ""
        self._bound: float | None = None
        self._result = ""
        self._parts: dict[str, tuple[int, int | None, str]] = {}
        self._spinner = Spinner("dots")
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=8, transient=True)

    def change(self, detail: str) -> None:
        self._detail = detail

    def glimpse(self, text: str) -> None:
        self._glimpse = Text.from_ansi(text).plain

    def event(self, text: str) -> None:
        self._console.print(Text(f"    {text}", style="dim"))

    def bound(self, seconds: float) -> None:
        self._bound = seconds

    def part(self, name: str, *, done: int, total: int | None, status: str) -> None:
        self._parts[name] = (done, total, status)

    def poll(self) -> None:
        pass  # Ctrl-C reaches the command itself

    def result(self, detail: str) -> None:
        self._result = detail

    def _render(self) -> RenderableType:
        elapsed = time.monotonic() - self._began
        bound = f" of {in_seconds(self._bound)}" if self._bound else ""
        self._spinner.update(text=Text.assemble(f" {self._title}  ", (f"{in_seconds(elapsed)}{bound}", "dim")))
        lines: list[RenderableType] = [self._spinner]
        if self._detail:
            lines.append(Text(f"    {self._detail}", style="dim", overflow="ellipsis", no_wrap=True))
        if self._glimpse:
            lines.append(Text(f"    {self._glimpse}", style="dim italic", overflow="ellipsis", no_wrap=True))
        if self._parts:
            lines.append(self._bars())
        return Group(*lines)

    def _bars(self) -> Table:
        table = Table.grid(padding=(0, 1))
        unfinished = {name: part for name, part in self._parts.items() if part[0] != part[1]}
        for name, (done, total, status) in list(unfinished.items())[-PARTS_SHOWN:]:
            bar = ProgressBar(total=total, completed=done, width=30) if total else Text("")
            amount = f"{done / 1e6:.0f}/{total / 1e6:.0f} MB" if total else ""
            table.add_row("   ", name, bar, amount, status)
        finished = len(self._parts) - len(unfinished)
        if finished:
            table.add_row("   ", f"{finished} of {len(self._parts)} done")
        return table

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._live.stop()
        took = time.monotonic() - self._began
        if kind is None:
            mark, style, said = "ok", "green", self._result
        elif kind is KeyboardInterrupt:
            mark, style, said = "--", "yellow", f"stopped: {self._detail}"
        else:
            mark, style, said = "no", "red", self._detail
        suffix = f"  ({in_seconds(took)})" if took >= 1 else ""
        line = Text.assemble((f"{mark} ", style), self._title, f": {said}" if said else "", (suffix, "dim"))
        self._console.print(line, soft_wrap=True)
