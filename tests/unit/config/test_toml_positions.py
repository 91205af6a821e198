from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from vllmray.config.render import toml
from vllmray.config.toml_positions import positions

TEXT = '''version = 1
# a comment with [brackets] and "quotes"
share = ["image", "a # sign, and a ]",
  "model"] # more
[cluster]
name = "x"
image = { build = true, "q\\u0041" = 'y#' }
a.b = 1

[[hosts]]
address = """several
[lines]"""
env = [{A=1},{B=2}]
[[hosts]]
  address = 3
[hosts.sub]
z = 1979-05-27 07:32:00
'''


def test_each_key_has_its_line_and_column() -> None:
    assert positions(TEXT) == {
        ("version",): (1, 1),
        ("share",): (3, 1),
        ("cluster",): (5, 1),
        ("cluster", "name"): (6, 1),
        ("cluster", "image"): (7, 1),
        ("cluster", "image", "build"): (7, 11),
        ("cluster", "image", "qA"): (7, 25),
        ("cluster", "a"): (8, 1),
        ("cluster", "a", "b"): (8, 1),
        ("hosts", 0): (10, 1),
        ("hosts", 0, "address"): (11, 1),
        ("hosts", 0, "env"): (13, 1),
        ("hosts", 0, "env", 0, "A"): (13, 9),
        ("hosts", 0, "env", 1, "B"): (13, 15),
        ("hosts", 1): (14, 1),
        ("hosts", 1, "address"): (15, 3),
        ("hosts", 1, "sub"): (16, 1),
        ("hosts", 1, "sub", "z"): (17, 1),
    }


def paths(value: Any, above: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Of every key of a document, whatever it was written as."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield (*above, key)
            yield from paths(each, (*above, key))
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from paths(each, (*above, number))


SCALARS = st.one_of(st.booleans(), st.integers(-(2**40), 2**40), st.floats(allow_nan=False, allow_infinity=False))
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=20)
VALUES = st.recursive(
    st.one_of(SCALARS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=12,
)


@given(st.dictionaries(TEXTS, VALUES, max_size=5), st.dictionaries(TEXTS, VALUES, max_size=4))
def test_the_keys_of_any_document_are_found_where_they_stand(top: dict[str, Any], table: dict[str, Any]) -> None:
    lines = [f"{toml(key)} = {toml(value)}" for key, value in top.items()]
    header = "t" * (max(map(len, top), default=0) + 1)
    lines += [f"[[{header}]]", *(f"{toml(key)} = {toml(value)}" for key, value in table.items())]
    text = "\n".join(lines)
    document = tomllib.loads(text)
    assert document == {**top, header: [table]}
    found = positions(text)
    wanted = {path for path in paths(document) if path != (header,)} | {(header, 0)}
    assert {*found} == wanted
    for path, (line, column) in found.items():
        key = path[-1]
        rest = text.split("\n")[line - 1][column - 1 :]
        assert rest.startswith((str(key), toml(key), "[["))
