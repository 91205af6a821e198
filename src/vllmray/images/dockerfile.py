"""What a Dockerfile needs, and the name of its image; pure, but for vllmray's own two files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from importlib import resources

OWN = {"nvidia": "Dockerfile", "cpu": "Dockerfile.cpu"}
"""By accelerator, from the package; examples/ has the same files."""


def own_dockerfile(accelerator: str) -> str | None:
    """The text of vllmray's own Dockerfile; None where there is none."""
    name = OWN.get(accelerator)
    return resources.files("vllmray.images").joinpath(name).read_text(encoding="utf-8") if name else None


def own_base(accelerator: str, architecture: str) -> str | None:
    """The base of vllmray's own Dockerfile on hosts of that architecture; None where its own default will do.

    Ray's images have one architecture a tag, and those for arm64 end in -aarch64 (Ray, docker/ray/README.md, "Tags").
    Python's, for CPUs, have several.
    """
    if (accelerator, architecture) != ("nvidia", "arm64"):
        return None
    default = re.search(r"^ARG BASE=(\S+)$", own_dockerfile(accelerator) or "", re.MULTILINE)
    return f"{default[1]}-aarch64" if default else None


def without_a_line(dockerfile: str, arguments: Mapping[str, str]) -> list[str]:
    """The arguments that the file has no ARG line for, so that giving them would change nothing."""
    known = set(re.findall(r"^\s*ARG\s+(\w+)", dockerfile, re.MULTILINE | re.IGNORECASE))
    return [name for name in arguments if name not in known]


def copies_files(dockerfile: str) -> bool:
    """Whether it takes files from a context: a COPY or ADD that is not from another stage."""
    return bool(re.search(r"^\s*(?:COPY|ADD)\s+(?!.*--from=)", dockerfile, re.MULTILINE | re.IGNORECASE))


def image_name(dockerfile: str, arguments: Mapping[str, str]) -> str:
    """The name of what is built, the same for the same file and arguments."""
    digest = hashlib.sha256(f"{dockerfile}\n{sorted(arguments.items())}".encode()).hexdigest()
    return f"vllmray-image:{digest[:12]}"
