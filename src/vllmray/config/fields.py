"""Building blocks of the fields of a cluster's settings."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")


def of(kind: str) -> dict[str, Any]:
    """Marks a field with the roles it matters to; a worker needs none of the engine's fields."""
    return {"of": kind}


def kind_of(extra: object) -> str:
    """The mark of a field, from its json_schema_extra."""
    return str(extra["of"]) if isinstance(extra, dict) else ""


def unless(problems: list[str], value: T) -> T:
    """The value, unless there are problems with it: then all of them in one ValueError, a line each."""
    if problems:
        raise ValueError("\n".join(problems))
    return value


class ImageBuild(BaseModel):
    """An image that is built where it is needed: `image = { build = "Dockerfile" }` in the cluster file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    build: Literal[True] | Annotated[str, Field(min_length=1)] = True
    """Path of a Dockerfile; True for vllmray's own."""
    base: str | None = None
    vllm_version: str | None = None
    ray_version: str | None = None
    pip: tuple[str, ...] = ()
    """Further packages, as pip takes them."""
