"""Versions through the labels of a Ray node and back."""

from __future__ import annotations

import pytest

from tests.unit.support import image_answer
from vllmray.images.facts import ImageFacts
from vllmray.images.fingerprint import PREFIX, VALUE, as_labels, differences, fingerprint, from_labels


def of(image: str = "vllm/vllm-openai:v0.33.0", **changes: object) -> dict[str, str]:
    return dict(fingerprint(ImageFacts(id="sha256:1", **image_answer(**changes)), image))  # type: ignore[arg-type]


@pytest.mark.parametrize("image", ["vllm/vllm-openai:v0.33.0", "10.0.0.1:5000/a_b/c.d@sha256:12", "vllmray:1"])
def test_labels_keep_every_character(image: str) -> None:
    mine = of(image)
    labels = as_labels(mine)
    assert all(VALUE.fullmatch(value) for value in labels.values())
    assert from_labels(labels | {"ray.io/node-id": "x"}) == mine


@pytest.mark.parametrize("image", ["/opt/venv/bin/python", "registry.example/" + "long/" * 12 + "name:tag"])
def test_what_no_label_can_hold_is_left_out(image: str) -> None:
    mine = of(image)
    assert from_labels(as_labels(mine)) == {name: value for name, value in mine.items() if name != "image"}


@pytest.mark.parametrize("ray", [None, "2.48.0", "1.13"])
def test_a_ray_without_labels_is_given_none(ray: str | None) -> None:
    assert as_labels(of(ray=ray)) == {}
    assert from_labels({}) is None


def test_only_what_both_know_can_differ() -> None:
    here = of("a:1")
    assert differences(of("b:1"), here) == []
    assert differences({"Ray": here["Ray"], "torch": "2.0.0"}, here) == ["torch"]
    assert all(name.startswith(PREFIX) for name in as_labels(here))
