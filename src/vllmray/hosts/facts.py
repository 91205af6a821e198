"""What is known of a host and of an image there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HostInfo:
    """What a host reports about itself."""

    runtime: str
    """What runs containers there, with its version: "Docker 29.0"."""
    cpus: int
    memory: int
    """Bytes."""
    architecture: str = ""
    """Of its processor, by the name that images use: "amd64", "arm64"; empty when unknown."""
    rootless: bool = False
    """The daemon runs as an ordinary user; root in a container is that user."""
    host_network: bool = True
    """A container in its host network is in this host's; with rootless Docker it is not."""
    boot_command: str | None = None
    """What makes it start containers after a reboot, where it does not do so by itself."""
    id: str = ""
    """Of the daemon; empty where it has none. Hosts that were cloned may have the same."""
    cdi_devices: tuple[str, ...] = ()
    """CDI device names, such as "nvidia.com/gpu=0"; only Docker Engine 28 and later list them."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image that the host has."""

    id: str
    size: int
    """Bytes."""
    user: str
    """As the image states it: "", "root", "2000", "vllm:vllm"."""
    entrypoint: tuple[str, ...] = ()
    """What the image itself would run; vllmray never uses it."""
    digests: tuple[str, ...] = ()
    """Its names by digest, in the registries that it came from."""
    architecture: str = ""
    """Of the processor that it is for: "amd64", "arm64"; empty when it does not state one."""
    fixed: bool = True
    """The same id always means the same contents."""
    contents: str = ""
    """A digest of its layers and configuration; empty where the id is the same on every host."""

    @property
    def identity(self) -> str:
        """The same on every host that has this image, whichever image store it uses."""
        return self.contents or self.id
