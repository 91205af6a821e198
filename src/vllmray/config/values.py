"""Words and numbers as people type them, turned into values; each raises ValueError with the fix in its text."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
DEFAULT_LIMIT = "default"


def parse_size(value: object) -> object:
    """A number of bytes, also written as "16g" or "16GiB": Docker's own suffixes, powers of 1024."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", value.strip().lower())
    if not match:
        raise ValueError("not a size: write it like 16g or 512m")
    return int(float(match[1]) * _UNITS[match[2]])


def as_typed(name: str, value: object) -> str:
    """A setting's value as a person would type it, so that parsing it gives the value again."""
    if name in ("memlock", "nofile"):
        return DEFAULT_LIMIT if value is None else "unlimited" if value == -1 else str(value)
    if name in ("shm_size", "object_store_memory") and isinstance(value, int):
        fitting = (unit for unit in "tgmk" if value % _UNITS[unit] == 0)
        unit = next(fitting, "")
        return f"{value // _UNITS[unit]}{unit}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def parse_limit(value: object) -> object:
    """A ulimit: a number, "unlimited" (-1), or "default" (None) for what the daemon gives."""
    if isinstance(value, str) and value in ("unlimited", "infinity"):
        return -1
    if value == DEFAULT_LIMIT:
        return None
    return value


def split_list(value: object) -> object:
    """Comma or newline separated text as a tuple; what is a list already stays one."""
    if isinstance(value, str):
        return tuple(part.strip() for part in re.split(r"[,\n]", value) if part.strip())
    return value


def split_variables(value: object) -> object:
    """As split_list, but a comma divides only before the next NAME=: NCCL_IB_HCA=mlx5_0,mlx5_1 is one variable."""
    if isinstance(value, str):
        parts = re.split(r"\n|,(?=\s*[A-Za-z_][A-Za-z0-9_]*=)", value)
        return tuple(part.strip() for part in parts if part.strip())
    return value


def check_ipv4(value: str) -> str:
    """An IPv4 address of one host.

    vLLM and Ray disagree about IPv6 node addresses (vllm-project/vllm issue 13521), so only IPv4 is taken.
    """
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        raise ValueError("not an IP address: write it like 10.0.0.1 (a host name will not do)") from None
    if address.version == 6:
        raise ValueError("IPv6 is not supported by vLLM over Ray: use the host's IPv4 address")
    if address.is_unspecified or address.is_multicast:
        raise ValueError("not the address of a host: write it like 10.0.0.1")
    return value


def check_volume(value: str) -> str:
    """SOURCE:TARGET[:ro], both absolute; a relative source would mean another folder on each host."""
    parts = value.split(":")
    if len(parts) not in (2, 3) or not all(part.startswith("/") for part in parts[:2]) or parts[2:] not in ([], ["ro"]):
        raise ValueError(f"{value!r} is not /source:/target or /source:/target:ro")
    return value


def check_variable(value: str) -> str:
    """NAME=VALUE."""
    if not re.match(r"[A-Za-z_][A-Za-z0-9_]*=", value):
        raise ValueError(f"{value!r} is not NAME=VALUE")
    return value


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
    """One of "all", a count, or ids: "0,2" or "device=2"."""
    if isinstance(value, Gpus):
        return value
    text = str(value).strip()
    if text == "all":
        return ALL_GPUS
    if text.isdigit() and int(text) > 0:
        return Gpus(count=int(text))
    listed = text.removeprefix("device=")
    ids = tuple(part.strip() for part in listed.split(",") if part.strip())
    if (text == listed and len(ids) < 2) or not ids or any(not re.fullmatch(r"[\w-]+", part) for part in ids):
        raise ValueError("write all, a count like 2, or ids like 0,2 or device=2")
    return Gpus(count=len(ids), ids=ids)


Size = Annotated[int, BeforeValidator(parse_size)]
Limit = Annotated[int | None, BeforeValidator(parse_limit)]
IPv4 = Annotated[str, AfterValidator(check_ipv4)]
Volume = Annotated[str, AfterValidator(check_volume)]
Variable = Annotated[str, AfterValidator(check_variable)]
GpuChoice = Annotated[Gpus, BeforeValidator(parse_gpus)]
