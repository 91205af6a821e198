"""What Ray says of the cluster, as values: the lines of watch.py, read."""

from __future__ import annotations

from pydantic import TypeAdapter, ValidationError

from vllmray.payload.protocol import RayStatus

_LINE = TypeAdapter(RayStatus)


def parse_line(line: str) -> RayStatus | None:
    """A line of watch.py; None for anything else that got into its output."""
    try:
        return _LINE.validate_json(line)
    except ValidationError:
        return None
