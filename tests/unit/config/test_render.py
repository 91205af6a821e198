from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given

from tests.unit.config.test_toml_positions import TEXTS, VALUES
from vllmray.config.render import Draft, DraftHost, render, toml


def test_a_draft_is_a_file_with_comments() -> None:
    host = DraftHost("gpu1", "head", {"node_ip": "10.0.0.1"}, ("2 x NVIDIA H100",))
    draft = Draft(
        {"name": "lab", "layout": "auto"}, [host], {"gpus": "all"}, comments=("Made.",), notes={"layout": "or"}
    )
    assert render(draft).splitlines() == [
        "# Made.",
        "version = 1",
        'share = ["image", "model"]  # what one host gets and the others get from it; []: each for itself',
        "",
        "[cluster]",
        'name = "lab"',
        'layout = "auto"  # or',
        "",
        "[defaults]  # of every host; a host's own settings win",
        'gpus = "all"',
        "",
        "[[hosts]]",
        "# 2 x NVIDIA H100",
        'address = "gpu1"',
        'role = "head"',
        'node_ip = "10.0.0.1"',
    ]


def test_a_long_list_has_a_line_an_entry() -> None:
    words = [f"--a-flag-with-number-{number}" for number in range(6)]
    assert len(toml(words).splitlines()) == 8
    assert tomllib.loads(f"a = {toml(words)}") == {"a": words}


@given(VALUES, TEXTS, TEXTS)
def test_whatever_stands_in_a_draft_is_read_back(value: Any, key: str, comment: str) -> None:
    draft = Draft(
        {"name": value},
        [DraftHost("a", "head", {"x": value}, (comment,))],
        {"d": {key: value}},
        notes={"name": comment},
    )
    found = tomllib.loads(render(draft))
    assert found == {
        "version": 1,
        "share": ["image", "model"],
        "cluster": {"name": value},
        "defaults": {"d": {key: value}},
        "hosts": [{"address": "a", "role": "head", "x": value}],
    }
