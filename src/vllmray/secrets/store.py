"""A cluster's secrets in this user's state folder: one file each, for this user alone.

<state folder>/secrets/<cluster>/ray_token       what Ray asks of every node and client
                                /api_key         what the endpoint asks for, a key a line
                                /api_key.header  the first of them as curl takes it: curl -H @FILE
                                /scrape_token    what /metrics asks of other hosts
                                /tls.key, /tls.crt  a self-signed certificate
                                /endpoint.crt    the endpoint's certificate, self-signed or not
"""

from __future__ import annotations

import secrets
from pathlib import Path

from vllmray.secure_files import PrivateFolder

RAY_TOKEN = "ray_token"
API_KEY = "api_key"
API_KEY_HEADER = "api_key.header"
SCRAPE_TOKEN = "scrape_token"
TLS_KEY = "tls.key"
TLS_CERTIFICATE = "tls.crt"
ENDPOINT_CERTIFICATE = "endpoint.crt"
TOKEN_BYTES = 32
TO_COME = "to come"
"""Stands in a plan for a secret that is not made yet."""


class SecretStore:
    """One cluster's. Every call raises ConfigError when others can write or read what is there."""

    def __init__(self, state_folder: Path, cluster: str) -> None:
        self.cluster = cluster
        self._folder = PrivateFolder(state_folder, "secrets", cluster)

    def path(self, name: str) -> Path:
        return self._folder.path / name

    def get(self, name: str) -> str | None:
        """A secret, or None when there is none; without the end of its line."""
        text = self._folder.read(name)
        return text.rstrip("\n") or None if text else None

    def have(self, name: str) -> str:
        """A secret, made now if there is none: random, TOKEN_BYTES long, in hexadecimal digits."""
        found = self.get(name) or self._folder.write_first(name, new(name) + "\n").rstrip("\n")
        if not found:  # a file with nothing in it is no secret
            found = new(name)
            self.keep(name, found)
        return found

    def keep(self, name: str, text: str) -> None:
        """Put one there, unless it is there already."""
        if self.get(name) != text:
            self._folder.write(name, text + "\n")


class PlannedStore(SecretStore):
    """The same for a plan, which makes and writes nothing: what would be made has a text that stands for it."""

    def __init__(self, state_folder: Path, cluster: str) -> None:
        super().__init__(state_folder, cluster)
        self.missing: dict[str, str] = {}
        """What is not there yet, or would be replaced, by name."""

    def have(self, name: str) -> str:
        return self.get(name) or self.missing.setdefault(name, TO_COME)

    def keep(self, name: str, text: str) -> None:
        if self.get(name) != text:
            self.missing[name] = TO_COME


def new(name: str) -> str:
    """A new random secret of that name."""
    return ("sk-" if name == API_KEY else "") + secrets.token_hex(TOKEN_BYTES)
