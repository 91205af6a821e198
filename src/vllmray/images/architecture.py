"""Names of processor architectures: what a kernel says of its own, and what images say of theirs; pure."""

from __future__ import annotations

# `uname -m`, which is also what a Docker daemon says -> Go's GOARCH (containerd, platforms).
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "armv6l": "arm", "i386": "386", "i686": "386"}


def architecture_of(machine: str) -> str:
    """As images name it, which is as the kernel does for all that are not in the table."""
    return ARCHITECTURES.get(machine, machine)
