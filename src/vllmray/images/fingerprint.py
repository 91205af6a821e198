"""Versions that must be the same on every node of a cluster, and how the head passes them to the workers; pure.

Ray refuses a node whose Ray or Python version differs (ray 2.60, ray/_private/utils.py, check_version_info), in a
worker's log; vLLM's stages must agree on the rest. The head carries its fingerprint as labels of its Ray node, which
come back with it after a restart and can be read by any version of Ray that has labels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from vllmray.images.facts import ImageFacts

PREFIX = "vllmray/"
IMAGE = "image"
ARCHITECTURE = "architecture"
NCCL_BUILD = "NCCL-build"
NONE = "none"
LABELS_SINCE = (2, 49)
"""`ray start --labels key=value` (Ray's documentation, "Use labels to control scheduling": new in 2.49)."""
# A label's value (ray 2.60, ray/_private/label_utils.py): Kubernetes' own syntax.
VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")

Fingerprint = Mapping[str, str]
"""Version by name, for display; "none" where there is none. The first is the image's own name."""


def fingerprint(facts: ImageFacts, image: str) -> Fingerprint:
    """The fingerprint of an image, with the name that the user gave for it."""
    versions = facts.versions
    return {
        IMAGE: image,
        ARCHITECTURE: facts.architecture or NONE,
        "Ray": versions.get("ray") or NONE,
        "Python": facts.python or NONE,
        "vLLM": facts.vllm or NONE,
        "torch": versions.get("torch") or NONE,
        "CUDA": facts.cuda or NONE,
        "NCCL": facts.nccl or NONE,
        NCCL_BUILD: (facts.nccl_sha256 or NONE)[:12],
    }


def as_labels(mine: Fingerprint) -> dict[str, str]:
    """As labels of a Ray node; empty for a Ray without labels. A value that is not valid in a label is left out."""
    if tuple(int(part) for part in re.findall(r"\d+", mine["Ray"])[:2]) < LABELS_SINCE:
        return {}
    coded = {f"{PREFIX}{name}": _coded(value) for name, value in mine.items()}
    return {name: value for name, value in coded.items() if VALUE.fullmatch(value)}


def from_labels(labels: Mapping[str, str]) -> Fingerprint | None:
    """The fingerprint that as_labels put into a node's labels; None when they have none."""
    found = {name.removeprefix(PREFIX): _decoded(value) for name, value in labels.items() if name.startswith(PREFIX)}
    return found or None


def _coded(value: str) -> str:
    """Characters that are not valid in a label become _XX: 2.13.0+cpu is 2.13.0_2Bcpu."""
    return re.sub(r"[^A-Za-z0-9.-]", lambda found: f"_{ord(found[0]):02X}", value)


def _decoded(value: str) -> str:
    return re.sub(r"_([0-9A-F]{2})", lambda found: chr(int(found[1], 16)), value)


def differences(head: Fingerprint, here: Fingerprint) -> list[str]:
    """The names in which the two differ, but for the image's own, which may have several; both must know them."""
    return [name for name in here if name != IMAGE and name in head and head[name] != here[name]]


def columns(head: Fingerprint, here: Fingerprint) -> str:
    """Both as a table, with a mark at each difference."""
    rows = [("", "head", "here", "")]
    marked = differences(head, here)
    rows += [(name, head.get(name, "?"), value, "differs" if name in marked else "") for name, value in here.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join("  ".join((*map(str.ljust, row[:3], widths), row[3])).rstrip() for row in rows)
