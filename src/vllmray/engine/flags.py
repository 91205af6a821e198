"""Parses arguments of the vLLM server into flags, as vLLM's own parser does; pure.

vllm 0.32, vllm/utils/argparse_utils.py, FlexibleArgumentParser: `_` stands for `-`, a prefix that only one flag has
stands for that flag (argparse's allow_abbrev is left on), --flag=value, -O3, and --flag.key value for a flag of JSON.
vllm_flags.json lists the flags of one version (tests/oracle/vllm_flags.py makes it, and tests/oracle holds it and this
parser to that vLLM); flags that it lacks, of another version, are known by the name they are typed with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

Takes = Literal["none", "one", "maybe", "many"]
NUMBER = re.compile(r"-\d+|-\d*\.\d+")
"""Arguments that argparse treats as values though they begin with a dash."""
LEVELS = ("0", "1", "2", "3")


@dataclass(frozen=True, slots=True)
class Given:
    """One flag, with its values."""

    typed: str
    """As the user typed it, without a value."""
    names: tuple[str, ...]
    """The long names of the flags that it matches: one, unless it is an ambiguous abbreviation."""
    values: tuple[str, ...]
    begin: int
    end: int
    """Its range in the arguments, values included."""
    joined: bool = False
    """The value was given with =."""
    keys: tuple[str, ...] = ()
    """Of --flag.key.key."""
    off: bool = False
    """--no-flag."""

    @property
    def name(self) -> str:
        """The long name of the flag; the first where it is ambiguous."""
        return self.names[0]

    @property
    def value(self) -> str | None:
        """The last of its values."""
        return self.values[-1] if self.values else None


@dataclass(frozen=True, slots=True)
class Arguments:
    """Parsed arguments."""

    flags: tuple[Given, ...]
    strays: tuple[str, ...]
    """Arguments of no flag. VLLM parses the first as the model, which its server then ignores."""


@cache
def known() -> Mapping[str, tuple[str, Takes]]:
    """Each name of a flag, with its long name and how many values it takes."""
    listed = json.loads(resources.files("vllmray.engine").joinpath("vllm_flags.json").read_text())["flags"]
    return {name: (flag, takes) for flag, (takes, *others) in listed.items() for name in (flag, *others)}


def read_flags(args: Sequence[str]) -> Arguments:
    """The flags in these arguments, in their order, and the arguments of no flag."""
    flags, strays, at = [], [], 0
    while at < len(args):
        found = _flag_at(args, at)
        if found is None:
            strays.append(args[at])
            at += 1
        else:
            flags.append(found)
            at = found.end
    return Arguments(tuple(flags), tuple(strays))


def last_of(args: Sequence[str], name: str) -> Given | None:
    """The last occurrence of this flag, which is the one that counts."""
    return next((each for each in reversed(read_flags(args).flags) if each.names == (name,)), None)


def _flag_at(args: Sequence[str], at: int) -> Given | None:
    arg = args[at]
    if not _is_flag(arg):
        return None
    if arg.startswith("-O"):
        return _level(args, at)
    typed, joined, value = arg.partition("=")
    key, *keys = _dashed(typed).split(".")
    names, glued = _meant(key)
    given: tuple[str, ...] = (value,) if joined else (glued,) if glued else ()
    if not given:
        given = tuple(_following(args, at + 1, "one" if keys else _takes(names)))
    end = at + 1 + (0 if joined or glued else len(given))
    last = keys[-1].removesuffix("+") if keys else ""
    return Given(typed, names, given, at, end, bool(joined), (*keys[:-1], last) if keys else (), _is_off(key, names))


def _level(args: Sequence[str], at: int) -> Given:
    """-O3, -O=3, and -O 3 are --optimization-level."""
    value = args[at][2:].removeprefix("=")
    more = () if value or at + 1 == len(args) or args[at + 1] not in LEVELS else (args[at + 1],)
    return Given("-O", ("--optimization-level",), (value,) if value else more, at, at + 1 + len(more), bool(value))


def _is_flag(arg: str) -> bool:
    if not arg.startswith("-") or len(arg) == 1 or arg == "--":
        return False
    name = _dashed(arg.partition("=")[0])
    if name in known():
        return True
    return not NUMBER.fullmatch(arg) and " " not in name


def _dashed(typed: str) -> str:
    """The flag with each _ replaced by -, up to the first dot."""
    if not typed.startswith("--"):
        return typed
    name, dot, rest = typed.partition(".")
    return name.replace("_", "-") + dot + rest


def _meant(key: str) -> tuple[tuple[str, ...], str]:
    """(the flags that it matches, a value appended to a flag of one letter): -q, -qfp8, --max-model-l."""
    if key in known():
        return (known()[key][0],), ""
    longer = sorted({flag for name, (flag, _) in known().items() if name.startswith(key)})
    short = key[:2]
    if not key.startswith("--") and short in known() and not longer:
        return (known()[short][0],), key[2:]
    return tuple(longer) or (key,), ""


def _takes(names: tuple[str, ...]) -> Takes:
    return known()[names[0]][1] if names[0] in known() else "many"


def _is_off(key: str, names: tuple[str, ...]) -> bool:
    """Whether it is --no-flag, or an abbreviation of one."""
    return key.startswith("--no-") and not any(name.startswith(key) for name in names)


def _following(args: Sequence[str], at: int, takes: Takes) -> Iterator[str]:
    most = {"none": 0, "one": 1, "maybe": 1, "many": len(args)}[takes]
    for arg in args[at : at + most]:
        if _is_flag(arg) or arg == "--":
            return
        yield arg
