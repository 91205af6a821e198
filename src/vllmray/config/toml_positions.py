"""Where each key of a TOML text stands. tomllib gives no positions, and neither does tomlkit (0.13)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

Path = tuple[str | int, ...]
"""Keys from the top, and indices into arrays of tables: ("hosts", 0, "gpus")."""
Position = tuple[int, int]
"""Line and column, from 1."""

_SPACE = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BLANK = re.compile(r"[ \t]*")
_KEY = re.compile(r"""[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'""")
_STRING = re.compile(r'"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'', re.DOTALL)
_PLAIN = re.compile(r"""[^"'#\[\]{},\n=]+""")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))")
_SHORT = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", "e": "\x1b"}


def positions(text: str) -> Mapping[Path, Position]:
    """The position of each key of a valid document, and of the header of each table; those of inline tables too."""
    return _Scanner(text).scan()


class _Scanner:
    """Walks over the statements of a document that a parser has accepted."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._found: dict[Path, Position] = {}
        self._arrays: dict[Path, int] = {}

    def scan(self) -> dict[Path, Position]:
        table: Path = ()
        self._skip(_SPACE)
        while self._at < len(self._text):
            table = self._header() if self._sees("[") else self._pair(table)
            self._skip(_SPACE)
        return self._found

    def _header(self) -> Path:
        start, several = self._at, self._text.startswith("[[", self._at)
        self._at += 2 if several else 1
        path = self._resolved(self._keys())
        self._at += 2 if several else 1
        if several:
            self._arrays[path] = self._arrays.get(path, -1) + 1
            path = (*path, self._arrays[path])
        self._note(path, start)
        return path

    def _resolved(self, keys: Path) -> Path:
        """A header's keys with the index of the last entry of each array of tables that they lead through."""
        path: Path = ()
        for number, key in enumerate(keys):
            path = (*path, key)
            if path in self._arrays and number < len(keys) - 1:
                path = (*path, self._arrays[path])
        return path

    def _pair(self, table: Path) -> Path:
        start = self._at
        keys = self._keys()
        for count in range(1, len(keys) + 1):  # a.b = 1 is a table a too
            self._note((*table, *keys[:count]), start)
        path = (*table, *keys)
        self._at += 1  # =
        self._skip(_BLANK)
        self._value(path)
        return table

    def _value(self, path: Path) -> None:
        if self._sees("["):
            self._closed("]", lambda number: self._value((*path, number)))
        elif self._sees("{"):
            self._closed("}", lambda _: self._pair(path))
        elif self._text[self._at] in "\"'":
            self._skip(_STRING)
        else:
            self._skip(_PLAIN)

    def _closed(self, end: str, item: Callable[[int], object]) -> None:
        """An array or an inline table, which may go over several lines."""
        self._at += 1
        number = 0
        self._skip(_SPACE)
        while not self._sees(end):
            item(number)
            number += 1
            self._skip(_SPACE)
            if self._sees(","):
                self._at += 1
                self._skip(_SPACE)
        self._at += 1

    def _keys(self) -> Path:
        keys = list(self._each_key())
        self._skip(_BLANK)
        return tuple(keys)

    def _each_key(self) -> Iterator[str]:
        while True:
            self._skip(_BLANK)
            yield _unquoted(self._skip(_KEY))
            self._skip(_BLANK)
            if not self._sees("."):
                return
            self._at += 1

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        found = match[0] if match else ""
        self._at += len(found)
        return found

    def _sees(self, sign: str) -> bool:
        return self._text.startswith(sign, self._at)

    def _note(self, path: Path, at: int) -> None:
        line = self._text.count("\n", 0, at) + 1
        self._found.setdefault(path, (line, at - self._text.rfind("\n", 0, at)))


def _unquoted(key: str) -> str:
    if key.startswith('"'):
        return _ESCAPE.sub(_character, key[1:-1])
    return key[1:-1] if key.startswith("'") else key


def _character(match: re.Match[str]) -> str:
    code = match[1] or match[2]
    return chr(int(code, 16)) if code else _SHORT.get(match[3], match[3])
