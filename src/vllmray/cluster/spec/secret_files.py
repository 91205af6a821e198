"""The shell lines that create a cluster's secrets, for a plan that creates none itself; pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

from pydantic import SecretStr

from vllmray.cluster.spec.contents import SCRYPT, Secrets, salt_of
from vllmray.cluster.spec.labels import ENGINE
from vllmray.secrets.store import API_KEY, TLS_CERTIFICATE, TLS_KEY, TO_COME, TOKEN_BYTES

CERTIFICATE = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 -subj /CN=vllmray "
    "-addext basicConstraints=critical,CA:FALSE -addext extendedKeyUsage=serverAuth "
    "-addext subjectAltName={names} -keyout {key} -out {certificate}"
)
_PLACE = SecretStr(TO_COME)
PLANNED = Secrets(ray_token=_PLACE, api_key=_PLACE, scrape_token=_PLACE, certificate=TO_COME)
CERTIFICATE_MARK = "certificate"


def lines(folder: Path, names: Iterable[str], certified: Iterable[str], *, marked: bool) -> list[str]:
    """A line for each missing secret, as a file of the folder; empty where none is missing.

    Args:
        names: of the secrets, as the store has them.
        certified: what a certificate is for, as in "IP:10.0.0.1".
        marked: with the marks that the labels of containers have, as variables; see filled().
    """
    missing = set(names)
    if not missing:
        return []
    made = ["# secrets that do not exist yet, as `vllmray up` creates them", "umask 077", f"mkdir -p {_quoted(folder)}"]
    for name in sorted(missing - {TLS_KEY, TLS_CERTIFICATE}):
        prefix = "sk-" if name == API_KEY else ""
        program = f"import secrets; print('{prefix}' + secrets.token_hex({TOKEN_BYTES}))"
        made.append(f"python3 -c {shlex.quote(program)} > {_quoted(folder / name)}")
        if marked:
            made.append(f"{name}_mark=$(python3 -c {shlex.quote(_marking(name))} < {_quoted(folder / name)})")
    if missing & {TLS_KEY, TLS_CERTIFICATE}:
        key, certificate = _quoted(folder / TLS_KEY), _quoted(folder / TLS_CERTIFICATE)
        made.append(CERTIFICATE.format(names=shlex.quote(",".join(certified)), key=key, certificate=certificate))
        if marked:
            made.append(f"{CERTIFICATE_MARK}_mark=$(sha256sum {certificate} | cut -c 1-16)")
    return made


def _marking(name: str) -> str:
    """A program that does what contents.Secrets.marks does, for what it reads."""
    parameters = ", ".join(f"{word}={value}" for word, value in SCRYPT.items())
    return (
        "import hashlib, sys; secret = sys.stdin.read().strip().encode(); "
        f"print(hashlib.scrypt(secret, salt={salt_of(name)!r}, {parameters}).hex())"
    )


def filled(text: str) -> str:
    """A plan's lines with the variables of lines() in the place of marks of secrets that do not exist yet.

    A label that has a mark is in single quotes there, since it has double ones itself (shlex.quote).
    """
    for name, mark in PLANNED.marks(ENGINE).items():
        text = text.replace(mark, f"'\"${name}_mark\"'")
    return text


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
