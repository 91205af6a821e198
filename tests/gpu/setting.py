"""What the rows run on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.gpu import machine, shapes
from tests.gpu.engine import Sizes
from tests.gpu.places import DockerHost, Place
from tests.gpu.results import Row
from tests.gpu.shapes import Shape


@dataclass(frozen=True, slots=True)
class Bench:
    """What vLLM's own benchmark is asked for."""

    prompts: int = 400
    concurrency: int = 32
    input_tokens: int = 512
    output_tokens: int = 128


@dataclass(slots=True)
class Setting:
    """What the rows run on."""

    folder: Path
    environment: Mapping[str, str]
    """What every node gets besides."""
    image: str
    hosts: list[DockerHost]
    wait_for_image: Callable[[], object] = lambda: None
    """Returns when the hosts have it."""
    python: str = sys.executable
    small: Shape = shapes.LLAMA_8B
    large: Shape = shapes.LLAMA_70B
    filling: Mapping[str, Shape] = field(default_factory=lambda: {"MoE": shapes.MIXTURE, "MLA": shapes.LATENT})
    after: tuple[str, ...] = ()
    """Further arguments of vLLM's server."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Further ones of vllmray."""
    one_host: Sizes = field(default_factory=lambda: Sizes(2, 1))
    two_hosts: Sizes = field(default_factory=lambda: Sizes(1, 2))
    gpus_of_two: tuple[str, str] = ("device=0", "device=1")
    memory: int = 0
    """Bytes of a GPU, of the one that has least; 0 in a rehearsal."""
    bench: Bench = field(default_factory=Bench)

    def place(self, name: str, host: DockerHost | None = None, **more: str) -> Place:
        """A shell before that host's daemon, or without one for processes."""
        listed = ",".join(f"{key}={value}" for key, value in self.environment.items())
        settings = {**self.settings, **({"VLLMRAY_ENV": listed} if listed else {}), **more}
        if host is None:
            settings |= {"VLLMRAY_RUNTIME": "native", "VLLMRAY_PYTHON": self.python}
            settings["VLLMRAY_NODE_IP"] = "127.0.0.1"  # a machine without a network has no other
        else:
            settings |= {"VLLMRAY_RUNTIME": "docker", "DOCKER_HOST": host.socket, "VLLMRAY_IMAGE": self.image}
            settings["VLLMRAY_NODE_IP"] = host.address
        inside = host.inside if host else ()
        return Place(name, self.folder / name, settings, self.folder / "commands.log", inside)

    def model(self, shape: Shape) -> Path:
        return shapes.write(shape, self.folder / "models")

    @property
    def is_real(self) -> bool:
        return self.memory > 0


def nothing_left(setting: Setting, row: Row) -> None:
    """On the GPUs, as nvidia-smi has it."""
    if setting.is_real:
        left = machine.leftovers()
        row.must(not left, f"left on the GPUs: {', '.join(left)}")
        row.saw("nvidia-smi: nothing left" if not left else "leftovers")
