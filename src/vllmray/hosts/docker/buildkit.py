"""BuildKit's progress messages as lines of text; pure.

With version=2 the Engine API's build call sends `moby.buildkit.trace` entries: protocol buffers of BuildKit's
StatusResponse (moby/buildkit, api/services/control/control.proto). Only four of its fields are shown, too few to
depend on the protobuf package for. Wire format: protobuf.dev, "Encoding".
"""

from __future__ import annotations

import base64
from collections.abc import Iterator

TRACE = "moby.buildkit.trace"
# StatusResponse
_VERTEXES, _LOGS = 1, 3
# Vertex
_NAME, _CACHED, _STARTED, _COMPLETED = 3, 4, 5, 6
# VertexLog
_MESSAGE = 4
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def said(trace: str) -> Iterator[str]:
    """Lines of one entry: a step's name when it begins or is found in the cache, and what it prints.

    Raises:
        ValueError: the entry is not valid.
    """
    for number, value in _fields(base64.b64decode(trace)):
        if not isinstance(value, bytes):
            continue
        if number == _VERTEXES:
            vertex = dict(_fields(value))
            name = vertex.get(_NAME, b"")
            if isinstance(name, bytes) and _STARTED in vertex and _COMPLETED not in vertex:
                yield name.decode(errors="replace")
            elif isinstance(name, bytes) and vertex.get(_CACHED):
                yield f"{name.decode(errors='replace')} (cached)"
        elif number == _LOGS:
            message = dict(_fields(value)).get(_MESSAGE, b"")
            if isinstance(message, bytes):
                yield from message.decode(errors="replace").splitlines()


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field of a message; a repeated field comes several times."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == _BYTES:
            length, at = _varint(data, at)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"unknown wire type {kind}")
        yield number, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data):
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError("truncated number")
