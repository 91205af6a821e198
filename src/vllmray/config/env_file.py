"""A .env file as Docker Compose reads it: names, values with variables substituted, and every invalid line.

Docker's documentation, "Set, use, and manage variables in a Compose file with interpolation" (".env file syntax" and
"Interpolation syntax"): unquoted and double-quoted values are interpolated, single-quoted ones are literal; a variable
is taken from the environment, else from an earlier line. No message has any part of a value, which may be a secret.
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dotenv.parser import Binding, parse_stream

from vllmray.config.explain import Problem
from vllmray.config.interpolation import NotSetError, interpolated
from vllmray.errors import ConfigError
from vllmray.secure_files import read_trusted

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_START = re.compile(r"\s*(?:export[^\S\r\n]+)?(?:'[^']+'|[^=#\s]+)[^\S\r\n]*=[^\S\r\n]*")
_QUOTED = re.compile(r'"((?:\\.|[^"\\])*)"', re.DOTALL)
_ESCAPE = re.compile(r"\\([\\'\"abfnrtv])|\\(\$)|(\$)")
NO_LINE = "not NAME=VALUE or a comment, or a quote is not closed"


@dataclass(frozen=True, slots=True)
class EnvFile:
    """What is in it: values by name, and what is invalid."""

    title: str
    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    unreadable: tuple[Problem, ...] = ()
    wrong: Mapping[str, Problem] = field(default_factory=dict)
    """By name: a syntax error in the value, which is reported only when the variable is read."""
    empty: tuple[str, ...] = ()
    """Names whose value is a variable that is not set."""


def read_env_file(path: Path, environ: Mapping[str, str]) -> EnvFile:
    """The file, with the variables in its values substituted.

    Raises:
        ConfigError: it can't be read, or others can write it.
    """
    try:
        text = read_trusted(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"can't read {path}: {error}", hint="Check the path given with --env-file.") from error
    return parse_env_file(text, str(path), environ)


def parse_env_file(text: str, title: str, environ: Mapping[str, str]) -> EnvFile:
    """As read_env_file, for a text.

    Args:
        title: what the file is called in problems.
        environ: its variables take precedence over those of the file's earlier lines.
    """
    values: dict[str, str] = {}
    wrong: dict[str, Problem] = {}
    empty: list[str] = []
    unreadable: list[Problem] = []
    for binding in parse_stream(io.StringIO(text)):
        name, line = binding.key, _line_of(binding)
        if binding.error or (name and binding.value is None and not NAME.fullmatch(name)):
            unreadable.append(Problem(f"line {line} in {title}", NO_LINE, "correct it, or comment it out with #"))
        if binding.error or name is None:
            continue
        wrong.pop(name, None)
        if binding.value is None:  # as in Compose: the environment's, which takes precedence over this file in any case
            if name not in environ:
                wrong[name] = Problem(f"line {line} in {title}", "a name without a value", "write NAME=VALUE")
            continue
        try:
            values[name] = _value(binding, {**values, **environ})
        except NotSetError as error:
            values[name] = ""
            if error.is_all:
                empty.append(name)
            else:
                wrong[name] = Problem(f"{name} in {title}, line {line}", *error.words)
        except ValueError as error:
            values[name] = binding.value
            what, _, fix = str(error).partition(": ")
            wrong[name] = Problem(f"{name} in {title}, line {line}", what, fix)
    values = {name: value for name, value in values.items() if name not in wrong}
    return EnvFile(title, values, tuple(unreadable), wrong, tuple(empty))


def _line_of(binding: Binding) -> int:
    """Where it begins: the parser counts blank lines before it as its own."""
    original = binding.original
    blank = original.string[: len(original.string) - len(original.string.lstrip())]
    return original.line + len(re.findall(r"\r\n|\n|\r", blank))


def _value(binding: Binding, variables: Mapping[str, str]) -> str:
    start = _START.match(binding.original.string)
    rest = binding.original.string[start.end() :] if start else ""
    if rest.startswith("'"):
        return binding.value or ""
    quoted = _QUOTED.match(rest)
    if quoted:
        return interpolated(_ESCAPE.sub(_unescaped, quoted[1]), variables)
    return interpolated((binding.value or "").replace("\\$", "$$"), variables)


def _unescaped(found: re.Match[str]) -> str:
    """An escape in double quotes; of a dollar sign, the $$ that interpolation takes for one."""
    if found[1]:
        return str(codecs.decode(found[0], "unicode-escape"))
    return "$$" if found[2] else "$"
