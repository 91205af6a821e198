"""A cluster's secrets in this user's state folder: one file each, for this user alone.

<state folder>/secrets/<cluster>/ray_token       Ray's token, required of every node and client
                                /api_key         the endpoint's keys, one a line
                                /api_key.header  the first of them as a header for curl: curl -H @FILE
                                /scrape_token    the token for /metrics, required of other hosts
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
"""The placeholder in a plan for a secret that does not exist yet."""


class SecretStore:
    """The secrets of one cluster. Every call raises ConfigError when others can read or write them."""

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
        """A secret, generated if there is none: random, TOKEN_BYTES long, in hexadecimal digits."""
        found = self.get(name) or self._folder.write_first(name, new(name) + "\n").rstrip("\n")
        if not found:  # an empty file is not a secret
            found = new(name)
            self.keep(name, found)
        return found

    def keep(self, name: str, text: str) -> None:
        """Store a secret, unless it is stored already."""
        if self.get(name) != text:
            self._folder.write(name, text + "\n")


class PlannedStore(SecretStore):
    """The store for a plan, which writes nothing: a placeholder stands for each secret that would be generated."""

    def __init__(self, state_folder: Path, cluster: str) -> None:
        super().__init__(state_folder, cluster)
        self.missing: dict[str, str] = {}
        """Secrets that do not exist yet, or would be replaced, by name."""

    def have(self, name: str) -> str:
        return self.get(name) or self.missing.setdefault(name, TO_COME)

    def keep(self, name: str, text: str) -> None:
        if self.get(name) != text:
            self.missing[name] = TO_COME


def new(name: str) -> str:
    """A new random secret of that name."""
    return ("sk-" if name == API_KEY else "") + secrets.token_hex(TOKEN_BYTES)
