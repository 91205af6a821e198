"""Reports all invalid settings at once, one line for each: where the value came from, what is wrong, the fix."""

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


HINT = "Correct them and run the command again; `vllmray up --help-all` lists every setting."


def config_error(problems: Sequence[Problem], *, hint: str = HINT) -> ConfigError:
    """One error for all of them."""
    count = "1 invalid setting" if len(problems) == 1 else f"{len(problems)} invalid settings"
    return ConfigError(
        f"{count}; nothing was started",
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
        if detail["type"] == "extra_forbidden":
            return [Problem(where, *NO_SUCH_PORT)]
    return [Problem(where, what, fix) for what, fix in words_of(detail)]


def origin(field: str, layers: Sequence[NamedLayer]) -> str:
    """Where a setting's value came from, as the user wrote it; for a default, the field's name."""
    for layer in layers:
        if field in layer.names:
            return f"{layer.names[field]} in {layer.title}" if layer.title else layer.names[field]
    return field


def words_of(detail: ErrorDetails) -> list[tuple[str, str]]:
    """(what is wrong, the fix) for one of pydantic's errors, without pydantic's wording; our own validators may report
    several, a line each.
    """
    if detail["type"] == "value_error":
        lines = str(detail["ctx"]["error"]).splitlines()
        return [(what, fix) for what, _, fix in (line.partition(": ") for line in lines)]
    if detail["type"] == OWN:
        return [(detail["msg"], "")]
    what, fix = _WORDS.get(detail["type"], UNKNOWN)
    return [(what, fix.format(**detail.get("ctx", {})))]


OWN = "vllmray"
"""The type of a PydanticCustomError whose message is ours."""
UNKNOWN = ("invalid value", "")
_NOT_AN_INTEGER = ("not a whole number", "give digits only")
_NOT_A_NUMBER = ("not a number", "give seconds, such as 600")
_NOT_A_BOOLEAN = ("neither true nor false", "give true or false")
_NOT_TEXT = ("not text", "put it in quotes")
_NOT_A_LIST = ("not a list", "give the values in [ ]")
_NOT_A_TABLE = ("not a table of names and values", "write {{ NAME = VALUE }}")
# pydantic's error types (pydantic docs, "Validation Errors") -> (what is wrong, the fix); {name} is of its context.
_WORDS = {
    **dict.fromkeys(("int_parsing", "int_parsing_size", "int_type", "int_from_float"), _NOT_AN_INTEGER),
    **dict.fromkeys(("float_parsing", "float_type"), _NOT_A_NUMBER),
    **dict.fromkeys(("bool_parsing", "bool_type"), _NOT_A_BOOLEAN),
    **dict.fromkeys(("string_type", "string_unicode", "string_sub_type"), _NOT_TEXT),
    **dict.fromkeys(("tuple_type", "list_type", "iterable_type"), _NOT_A_LIST),
    **dict.fromkeys(("model_type", "dict_type", "mapping_type", "model_attributes_type"), _NOT_A_TABLE),
    "finite_number": ("not a finite number", "give digits only"),
    "greater_than": ("too small", "it must be above {gt}"),
    "greater_than_equal": ("too small", "the least is {ge}"),
    "less_than": ("too large", "it must be below {lt}"),
    "less_than_equal": ("too large", "the most is {le}"),
    "literal_error": ("not one of the choices", "use {expected}"),
    "enum": ("not one of the choices", "use {expected}"),
    "string_pattern_mismatch": ("has invalid characters", "it must match {pattern}"),
    "string_too_short": ("empty", "give a value, or leave the setting out"),
    "extra_forbidden": ("no such entry", "remove it, or correct its name"),
    "missing": ("is missing", ""),
    "json_invalid": ("not JSON", ""),
}
NO_SUCH_PORT = ("no such port", "`vllmray up --help-all` lists them")
