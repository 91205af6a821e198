"""A cluster file as text, with comments; pure. `init` and `import` write it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_WIDTH = 100
"""Characters of a line from which a list has a line an entry."""


@dataclass(frozen=True, slots=True)
class DraftHost:
    """A host of a file to be written."""

    address: str
    role: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    """By the file's names."""
    comments: Sequence[str] = ()
    """What was found there, a line each."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A cluster file to be written; settings by the file's names."""

    cluster: Mapping[str, Any]
    hosts: Sequence[DraftHost]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    share: Sequence[str] = ("image", "model")
    comments: Sequence[str] = ()
    """At the top, a line each."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """A comment after a setting of [cluster] or [defaults], by its name."""


def render(draft: Draft) -> str:
    """The file's text; reading it gives the same values back."""
    return "\n".join(_lines(draft)) + "\n"


def _lines(draft: Draft) -> Iterator[str]:
    yield from (_comment(line) for line in draft.comments)
    yield "version = 1"
    yield f"share = {toml(list(draft.share))}  # what one host gets and the others get from it; []: each for itself"
    yield ""
    yield "[cluster]"
    yield from _pairs(draft.cluster, draft.notes)
    if draft.defaults:
        yield ""
        yield "[defaults]  # of every host; a host's own settings win"
        yield from _pairs(draft.defaults, draft.notes)
    for host in draft.hosts:
        yield ""
        yield "[[hosts]]"
        yield from (_comment(line) for line in host.comments)
        yield from _pairs({"address": host.address, "role": host.role}, {})
        yield from _pairs(host.settings, {})


def _pairs(settings: Mapping[str, Any], notes: Mapping[str, str]) -> Iterator[str]:
    for name, value in settings.items():
        note = f"  {_comment(notes[name])}" if name in notes else ""
        yield f"{_key(name)} = {toml(value)}{note}"


def _comment(text: str) -> str:
    """A comment of one line; control characters are not allowed in one (TOML 1.0, "Comment")."""
    return "# " + re.sub(r"[\x00-\x1f\x7f]", " ", text)


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else toml(name)


def toml(value: Any) -> str:
    """A value in TOML: text, numbers, booleans, lists and tables of them.

    JSON's strings are TOML's basic strings, but for DEL, which TOML wants escaped, and surrogates, which it can't have.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{_key(str(name))} = {toml(each)}" for name, each in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, list | tuple):
        items = [toml(each) for each in value]
        line = f"[{', '.join(items)}]"
        return line if len(line) <= _WIDTH else "[\n" + "".join(f"    {item},\n" for item in items) + "]"
    text = str(value).encode(errors="replace").decode()  # a lone surrogate can't stand in a file
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
