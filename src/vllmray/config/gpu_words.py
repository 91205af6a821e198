"""Parses GPUs as users write them: those of a host, and those of all hosts of a cluster."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from vllmray.config.gpu_models import memory_of
from vllmray.config.sizes import UNITS, parse_size, split_list

MOST_GPUS = 64
"""Of one host."""
CDI_KIND = "nvidia.com/gpu="
"""What the names of NVIDIA's devices begin with in CDI (Container Device Interface specification)."""
_COUNTED = re.compile(r"(?:(\d{1,6})\s*[xX×]\s*)?(\S.*)")  # noqa: RUF001  # the sign for times, as people paste it
_ID = re.compile(r"\d+|\d+:\d+|GPU-[0-9a-f-]+|MIG-[\w/-]+", re.IGNORECASE)
"""An index, a MIG device by its GPU's index and its own, and the UUIDs of both (nvidia-smi -L)."""


def parse_cluster_gpus(value: object) -> object:
    """GPUs of each host, the head's first: "2x80GiB,2xH100" as ((bytes, bytes), (bytes, bytes)).

    A host with unlike GPUs is "2x80GiB+1x24GiB", or as `plan` prints it, "2 x 80 GiB and 1 x 24 GiB".
    """
    if not isinstance(value, str):
        return value
    hosts = []
    for text in split_list(value):  # type: ignore[attr-defined]  # text in, a tuple out
        host = tuple(size for part in re.split(r"\+|\band\b", text) for size in _alike(part.strip()))
        if not 0 < len(host) <= MOST_GPUS:
            raise ValueError(f"invalid GPUs of a host: it can have 1 to {MOST_GPUS}")
        hosts.append(host)
    return tuple(hosts)


def _alike(part: str) -> tuple[int, ...]:
    """GPUs of one kind: a count, and their memory or name."""
    match = _COUNTED.fullmatch(part)
    if not match or int(match[1] or 1) > MOST_GPUS:
        raise ValueError("invalid GPUs of a host: write a count and their memory or name, like 2x80GiB or 2xH100")
    size = memory_of(match[2])
    if size is None:
        if re.fullmatch(r"[\d.]+", match[2]):
            raise ValueError(f"{match[2]} without a unit would be bytes: write {part}GiB")
        size = _size(match[2])
    return (size,) * int(match[1] or 1)


def _size(text: str) -> int:
    try:
        size = parse_size(text)
    except ValueError:
        size = 0
    if not isinstance(size, int) or size < UNITS["m"]:
        raise ValueError("invalid GPUs of a host: write a count and their memory or name, like 2x80GiB or 2xH100")
    return size


def cluster_gpus_as_typed(hosts: tuple[tuple[int, ...], ...]) -> str:
    """The inverse of parse_cluster_gpus."""
    return ",".join("+".join(_alike_as_typed(host)) for host in hosts)


def _alike_as_typed(host: tuple[int, ...]) -> Iterator[str]:
    for size, same in groupby(host):
        unit = next((unit for unit in ("g", "m", "k") if size % UNITS[unit] == 0), "")
        yield f"{len(list(same))}x{size // UNITS[unit]}{unit.upper()}{'i' if unit else ''}B"


@dataclass(frozen=True, slots=True)
class Gpus:
    """Which GPUs of a host: all of them (count -1), the first `count`, or those with these ids."""

    count: int
    ids: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.ids:
            return "device=" + ",".join(self.ids)
        return "all" if self.count < 0 else str(self.count)


ALL_GPUS = Gpus(count=-1)


def parse_gpus(value: object) -> object:
    """One of "all", a count, or ids: "0,2", "device=2", a UUID, "0:1"; also as Docker and CDI write them."""
    if isinstance(value, Gpus):
        return value
    text = str(value).strip().strip("\"'")
    if text in ("all", f"{CDI_KIND}all"):
        return ALL_GPUS
    if text.isdecimal() and 0 < int(text) <= MOST_GPUS:
        return Gpus(count=int(text))
    listed = text.removeprefix("device=")
    ids = tuple(_id(part.strip()) for part in listed.split(",") if part.strip())
    if not ids or (text == ids[0] and text.isdecimal()):
        raise ValueError("write all, a count like 2, or ids like 0,2 or device=2")
    twice = sorted({name for name in ids if [each.lower() for each in ids].count(name.lower()) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)} is listed twice: name each GPU once")
    return Gpus(count=len(ids), ids=ids)


def _id(part: str) -> str:
    name = part.removeprefix(CDI_KIND)
    if not _ID.fullmatch(name):
        raise ValueError("write all, a count like 2, or ids like 0,2 or device=2")
    return str(int(name)) if name.isdecimal() else name
