"""Parses counts of tokens as vLLM's parser does; pure."""

from __future__ import annotations

import re

# vllm 0.32, vllm/utils/argparse_utils.py, human_readable_int: small letters are thousands, capitals powers of 1024.
FACTORS = {
    **dict(zip("kmgt", (10**3, 10**6, 10**9, 10**12), strict=True)),
    **dict(zip("KMGT", (2**10, 2**20, 2**30, 2**40), strict=True)),
}
AUTO_LENGTH = -1
"""A length that vLLM chooses: the model's maximum, or less where that does not fit."""


def parse_count(value: object) -> object:
    """A number, also one written as 128k or 2M; any other value is returned unchanged."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)([kKmMgGtT])", value.strip()) if isinstance(value, str) else None
    if not match:
        return value
    number, unit = match.groups()
    if unit.isupper() and "." in number:
        raise ValueError(f"no decimals before {unit}: write {number}{unit.lower()}")
    return int(float(number) * FACTORS[unit])


def parse_length(value: object) -> object:
    """A number of tokens as in parse_count, or "auto" or -1 for a length that vLLM chooses."""
    if isinstance(value, str) and value.strip().lower() in ("auto", str(AUTO_LENGTH)):
        return AUTO_LENGTH
    if value in (0, "0"):
        raise ValueError("too small: the least is 1")
    return parse_count(value)
