"""Every problem of the settings at once, one line a field: where the value came from, what is wrong, what to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from vllmray.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails


class NamedLayer(Protocol):
    """What is needed of a settings layer: which fields it sets, and under which names."""

    @property
    def title(self) -> str: ...
    @property
    def names(self) -> Mapping[str, str]: ...


@dataclass(frozen=True, slots=True)
class Problem:
    """One line of an explanation."""

    where: str
    what: str
    fix: str = ""

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}"
        return f"{line}; {self.fix}" if self.fix else line


HINT = "Correct them and run the command again; `vllmray up --help` lists every setting."


def config_error(problems: Sequence[Problem], *, hint: str = HINT) -> ConfigError:
    """One error for all of them."""
    count = "1 setting" if len(problems) == 1 else f"{len(problems)} settings"
    return ConfigError(
        f"{count} can't be right; nothing was started",
        details="\n".join(str(problem) for problem in problems),
        hint=hint,
    )


def problems_of(error: ValidationError, layers: Iterable[NamedLayer]) -> list[Problem]:
    """Pydantic's errors as problems; no input value is shown, since it may be a secret."""
    layers = tuple(layers)
    return [problem for detail in error.errors(include_url=False) for problem in _problems(detail, layers)]


def _problems(detail: ErrorDetails, layers: Sequence[NamedLayer]) -> list[Problem]:
    field, *rest = (str(part) for part in detail["loc"])
    where = origin(field, layers)
    if rest and field == "ray_ports":
        where = f"{rest[0]} in {where}"
    return [Problem(where, what, fix) for what, fix in _words(detail)]


def origin(field: str, layers: Sequence[NamedLayer]) -> str:
    """Where a setting's value came from, as the user wrote it; the field's own name for a default."""
    for layer in layers:
        if field in layer.names:
            return f"{layer.names[field]} in {layer.title}" if layer.title else layer.names[field]
    return field


def _words(detail: ErrorDetails) -> list[tuple[str, str]]:
    """(what is wrong, the fix) for one of pydantic's errors; our own validators may say several, a line each."""
    if detail["type"] == "value_error":
        lines = str(detail["ctx"]["error"]).splitlines()
        return [(what, fix) for what, _, fix in (line.partition(": ") for line in lines)]
    return [_pydantic_words(detail)]


# pydantic's error types (pydantic docs, "Validation Errors") -> (what is wrong, the fix); {name} is of its context.
_WORDS = {
    "int_parsing": ("not a whole number", "give digits only"),
    "int_type": ("not a whole number", "give digits only"),
    "int_from_float": ("not a whole number", "give digits only"),
    "float_parsing": ("not a number", "give seconds, such as 600"),
    "bool_parsing": ("neither true nor false", "give true or false"),
    "greater_than_equal": ("too small", "the least is {ge}"),
    "less_than_equal": ("too large", "the most is {le}"),
    "literal_error": ("not one of the choices", "use {expected}"),
    "string_pattern_mismatch": ("has characters that can't be used", "it must match {pattern}"),
    "string_too_short": ("empty", "give a value, or leave the setting out"),
    "extra_forbidden": ("no such port", "`vllmray up --help` lists them"),
}


def _pydantic_words(detail: ErrorDetails) -> tuple[str, str]:
    what, fix = _WORDS.get(detail["type"], (detail["msg"][:1].lower() + detail["msg"][1:], ""))
    return what, fix.format(**detail.get("ctx", {}))
