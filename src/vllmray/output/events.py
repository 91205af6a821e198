"""What `vllmray events` prints: a line a row."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllmray.cluster.history import Row


def row_line(row: Row) -> str:
    """Local time, container, text; nothing of a log's own that would move a terminal's cursor."""
    when = datetime.fromtimestamp(row.at, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    said = " ".join(f"{row.kind}: {row.text}".split())
    return f"{when}  {row.where}  {''.join(sign if sign.isprintable() else '?' for sign in said)}"
