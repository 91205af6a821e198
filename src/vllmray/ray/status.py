"""Parses the lines of watch.py, which report the state of the Ray cluster."""

from __future__ import annotations

from pydantic import TypeAdapter, ValidationError

from vllmray.payload.protocol import RayStatus

_LINE = TypeAdapter(RayStatus)


def parse_line(line: str) -> RayStatus | None:
    """Parse a line of watch.py; None for any other line in its output."""
    try:
        return _LINE.validate_json(line)
    except ValidationError:
        return None
