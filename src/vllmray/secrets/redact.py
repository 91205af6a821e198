"""Text without secrets, for files that leave this machine; pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

REDACTED = "[REDACTED]"
NO_SECRETS = (REDACTED, "[REDACTED", "null", "None", "true", "True", "false", "False")
"""Values that are not secrets, after a name that looks like a secret's."""
LEAST = 4
"""Characters of a known secret; shorter ones would match ordinary words."""
# What looks like a secret: keys by their prefixes (OpenAI's and ours, Hugging Face's, ModelScope's, AWS's, GitHub's),
# headers, passwords in URLs, private keys.
_SHAPES = (
    re.compile(r"\b(?:sk-|hf_|ms-|AKIA|ASIA|gh[pousr]_)[A-Za-z0-9_-]{8,}"),
    re.compile(r"(?i)(?<=bearer )[^\s\"',]+"),
    re.compile(r"(?<=://)[^\s/@\"']+(?=@)"),
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
)
# The name of a secret, and its value: NAME=value, "name": "value", --name value.
_NAMED = re.compile(
    r"""(?i)([\w-]*(?:token|secret|passw(?:or)?d|passphrase|(?:api|access|private)[_-]?key)[\w-]*["']?\s*[=:]\s*["']?|"""
    r"""--[\w-]*(?:token|secret|password|api-key)[ =]["']?)([^\s"',}\]]{4,})"""
)
# Names of vLLM's and Ray's own whose values are not secrets: max_tokens=512, token_file=PATH.
_HARMLESS = re.compile(r"(?i)tokens?[\w-]*(?:per|len|ids?|size|file|path)|tokens\b|[_-](?:file|path)\b")


def redacted(text: str, known: Iterable[str] = ()) -> str:
    """The text with each secret replaced.

    Args:
        known: secrets as they are; what merely looks like one is replaced in any case.
    """
    long = [secret for secret in known if len(secret) >= LEAST]
    as_json = (json.dumps(secret)[1:-1] for secret in long)
    for secret in sorted({*long, *as_json}, key=len, reverse=True):
        text = text.replace(secret, REDACTED)
    for shape in _SHAPES:
        text = shape.sub(REDACTED, text)
    return _NAMED.sub(_named, text)


def _named(found: re.Match[str]) -> str:
    return found[0] if _HARMLESS.search(found[1]) or found[2] in NO_SECRETS else found[1] + REDACTED
