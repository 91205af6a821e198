"""The results of commands about what hosts store, images and models; as those in results.py."""

from __future__ import annotations

from dataclasses import dataclass

from vllmray.output.results import Result


@dataclass(frozen=True)
class HostModel(Result):
    """A model on a host."""

    host: str
    whole: bool
    """Every file is there, and after `verify` every byte is right."""
    revision: str
    """The commit; empty where there is none, or for a folder."""
    size: int
    """Bytes."""
    wrong: list[str]


@dataclass(frozen=True)
class ModelFiles(Result):
    """`model pull`, `model ls` and `model verify`."""

    model: str
    hosts: list[HostModel]


@dataclass(frozen=True)
class RemovedModel(Result):
    """`model rm`: the bytes that were removed, by host."""

    model: str
    removed: dict[str, int]


@dataclass(frozen=True)
class BuiltImage(Result):
    """`image build`"""

    image: str


@dataclass(frozen=True)
class CopiedImage(Result):
    """`image copy`"""

    image: str
    source: str
    targets: list[str]


@dataclass(frozen=True)
class ImageContents(Result):
    """`image inspect`: what an image contains, with versions of Python distributions; null for what it does not."""

    id: str
    contents: str
    """A digest of its layers and configuration, the same on every host; empty in the native runtime."""
    reference: str
    """Its digest in a registry where it has one, else its id."""
    entrypoint: list[str]
    user: str
    versions: dict[str, str | None]
    python: str
    cuda: str | None
    nccl: str | None
    nccl_sha256: str | None
    ray_command: str | None
    machine: str
