"""Substitution of ${X}, $X, ${X:-default} and the like in a text, as Docker Compose does it; pure.

Docker's documentation, "Interpolation syntax"; compose-go, template/template.go, for what is an error. Messages contain
nothing of the text but the user's own words after ${X:?, which are meant to be shown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_OPERATOR = re.compile(r":?[-?+]")
DOLLAR = "for a dollar sign write $$, or the value in single quotes"


class NotSetError(ValueError):
    """The text names a variable that is not set, and has no default for it."""

    words = (
        "a variable in its value is not set",
        f"set it, or write ${{NAME:-}} for an empty one; {DOLLAR}",
    )

    def __init__(self, *, is_all: bool) -> None:
        super().__init__(": ".join(self.words))
        self.is_all = is_all
        """Nothing else is in the text."""


@dataclass(slots=True)
class _Reader:
    text: str
    variables: Mapping[str, str]
    at: int = 0
    is_unset: bool = False
    """A variable was not set."""

    def read(self, *, until: str = "") -> str:
        """The text up to an unquoted `until` or the end, with variables substituted."""
        parts: list[str] = []
        while self.at < len(self.text) and not (until and self.text[self.at] == until):
            if self.text[self.at] == "$":
                self.at += 1
                parts.append(self._variable())
            else:
                parts.append(self.text[self.at])
                self.at += 1
        return "".join(parts)

    def _variable(self) -> str:
        """The value of the expression after a $."""
        if self.text.startswith("$", self.at):
            self.at += 1
            return "$"
        if self.text.startswith("{", self.at):
            self.at += 1
            return self._braced()
        return self._plain(self._name())

    def _name(self) -> str:
        found = _NAME.match(self.text, self.at)
        if not found:
            raise ValueError(f"a $ that does not start a variable: {DOLLAR}")
        self.at = found.end()
        return found[0]

    def _plain(self, name: str) -> str:
        if name not in self.variables:
            self.is_unset = True
        return self.variables.get(name, "")

    def _braced(self) -> str:
        name = self._name()
        found = _OPERATOR.match(self.text, self.at)
        self.at = found.end() if found else self.at
        before, self.is_unset = self.is_unset, False
        begin = self.at
        other = self.read(until="}") if found else ""
        other_is_unset, self.is_unset = self.is_unset, before
        if not self.text.startswith("}", self.at):
            raise ValueError(f"a ${{ that is not closed: write ${{NAME}}; {DOLLAR}")
        said = self.text[begin : self.at]
        self.at += 1
        if not found:
            return self._plain(name)
        value = self.variables.get(name)
        is_there = bool(value) if found[0].startswith(":") else value is not None
        if found[0].endswith("?"):
            if not is_there:
                raise ValueError(f"it needs a variable that is not set: {said or 'set it'}")
            return value or ""
        if found[0].endswith("+") == is_there:
            self.is_unset = self.is_unset or other_is_unset
            return other
        return "" if found[0].endswith("+") else value or ""


def interpolated(text: str, variables: Mapping[str, str]) -> str:
    """The text with each variable substituted.

    Raises:
        NotSetError: a variable is not set and has no default.
        ValueError: an expression is invalid, or ${X:?words} is not set: with those words.
    """
    reader = _Reader(text, variables)
    value = reader.read()
    if reader.is_unset:
        raise NotSetError(is_all=not value)
    return value
