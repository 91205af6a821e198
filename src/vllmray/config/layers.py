"""One place that settings come from, and how several become one."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Layer:
    """One place that settings come from: its values by field name, and the name each stands under there."""

    title: str
    """Empty where the names say it all."""
    values: Mapping[str, Any] = dataclasses.field(repr=False)  # there may be secrets among them
    names: Mapping[str, str]


def merged(layers: Sequence[Layer]) -> dict[str, Any]:
    """Each field from the highest layer that has it; of a table, each entry.

    Args:
        layers: highest first.
    """
    found: dict[str, Any] = {}
    for layer in reversed(layers):
        for name, value in layer.values.items():
            below = found.get(name)
            found[name] = {**below, **value} if isinstance(below, dict) and isinstance(value, dict) else value
    return found


def one_image(*layers: Layer) -> tuple[Layer, ...]:
    """Drop image and Dockerfile from all layers but the highest one that names either."""
    kept: list[Layer] = []
    settled = False
    for layer in layers:
        values = {name: value for name, value in layer.values.items() if not (settled and name in ("image", "build"))}
        settled = settled or "image" in values or "build" in values
        kept.append(replace(layer, values=values))
    return tuple(kept)


def only(layer: Layer, fields: Collection[str]) -> Layer:
    """The layer with these fields alone."""
    return replace(layer, values={name: value for name, value in layer.values.items() if name in fields})
