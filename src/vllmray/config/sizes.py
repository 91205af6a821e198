"""Parses sizes and lists as users write them; each raises ValueError with the fix in its text."""

from __future__ import annotations

import re

UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}


def parse_size(value: object) -> object:
    """A number of bytes, also written as "16g" or "16GiB": Docker's own suffixes, powers of 1024."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\d{1,18}(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", value.strip().lower())
    if not match:
        raise ValueError("not a size: write it like 16g or 512m")
    return int(float(match[1]) * UNITS[match[2]])


def size_as_typed(size: int) -> str:
    """A number of bytes in the largest unit that divides it, as parse_size takes it."""
    unit = next((unit for unit in "tgmk" if size % UNITS[unit] == 0), "")
    return f"{size // UNITS[unit]}{unit}"


def split_list(value: object) -> object:
    """Comma or newline separated text as a tuple; what is a list already stays one."""
    if isinstance(value, str):
        return tuple(part.strip() for part in re.split(r"[,\n]", value) if part.strip())
    return value
