"""What `vllmray events` prints: one line for each event."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllmray.output.tables import local_time

if TYPE_CHECKING:
    from vllmray.cluster.observe.history import Row


def row_line(row: Row) -> str:
    """Local time, container, text; control characters from a log are replaced."""
    said = " ".join(f"{row.kind}: {row.text}".split())
    return f"{local_time(row.at)}  {row.where}  {''.join(sign if sign.isprintable() else '?' for sign in said)}"
