"""What is put into containers before they start: programs, and secrets, which get there in no other way; pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Self

from pydantic import SecretStr

from vllmray.cluster.spec.labels import ENGINE
from vllmray.config.models import ClusterConfig
from vllmray.hosts.base import File

# Paths inside the containers. All below one folder, which is a volume of the container's own: the rest of its file
# system is read-only.
SCRIPTS = "/vllmray"
HOME = f"{SCRIPTS}/home"
SITE = f"{SCRIPTS}/site"
"""On the Python path: this package with nothing in it but payload/, and the metadata that registers the vLLM plugin."""
PAYLOAD = f"{SITE}/vllmray/payload"
WATCH = f"{PAYLOAD}/node/watch.py"
NODE = f"{PAYLOAD}/node/main.py"
START_HEAD = f"{PAYLOAD}/node/start_head.py"
LAUNCH = f"{PAYLOAD}/engine/launch.py"
SECRETS = f"{SCRIPTS}/secrets"
RAY_TOKEN = f"{SECRETS}/ray_token"
HF_TOKEN = f"{SECRETS}/hf_token"
AWS_CREDENTIALS = f"{SECRETS}/aws_credentials"
MODELSCOPE = f"{SECRETS}/modelscope"
MODELSCOPE_LOGIN = (f"{MODELSCOPE}/cookies", f"{MODELSCOPE}/credentials/cookies")
"""Where versions of modelscope look for it."""
API_KEY = f"{SECRETS}/api_key"
SCRAPE_TOKEN = f"{SECRETS}/scrape_token"
TLS_CERTIFICATE = f"{SECRETS}/tls.crt"
TLS_KEY = f"{SECRETS}/tls.key"

# The cost of one guess (RFC 7914; 16 MiB, about 50 ms): a short key must not be found from labels by brute force.
SCRYPT = {"n": 2**14, "r": 8, "p": 1, "dklen": 8}


def salt_of(name: str) -> bytes:
    """A salt for each name: the same secret under two names has two marks."""
    return f"vllmray {name}".encode()


@dataclass(frozen=True, slots=True)
class Secrets:
    """A cluster's secrets, each a text; none is in a repr."""

    ray_token: SecretStr | None = None
    hf_token: SecretStr | None = None
    api_key: SecretStr | None = None
    """A key a line."""
    scrape_token: SecretStr | None = None
    certificate: str | None = None
    """The endpoint's chain, PEM."""
    certificate_key: SecretStr | None = None
    logins: Mapping[str, SecretStr] = field(default_factory=dict)
    """Credentials for sources of models, apart from the Hugging Face token: contents of files, by their path."""

    @classmethod
    def of(cls, config: ClusterConfig) -> Self:
        """Those that the settings have; the certificate comes when the address is known."""
        return cls(config.ray_token, config.hf_token, config.api_key, config.scrape_token)

    def of_node(self) -> tuple[File, ...]:
        """The files of any Ray node, and of any client of Ray."""
        return _files({RAY_TOKEN: self.ray_token, HF_TOKEN: self.hf_token, **self.logins})

    def variables(self) -> dict[str, str]:
        """Variables with the paths of credentials that programs read from files: no environment has the secrets.

        HF_TOKEN_PATH: huggingface_hub, constants.py. MODELSCOPE_HOME: modelscope_hub 0.5, config.py, and before that
        package MODELSCOPE_CREDENTIALS_PATH: modelscope, hub/constants.py.
        AWS_SHARED_CREDENTIALS_FILE: AWS SDKs and Tools Reference Guide, "Shared config and credentials files".
        """
        paths = {"AWS_SHARED_CREDENTIALS_FILE": AWS_CREDENTIALS} if AWS_CREDENTIALS in self.logins else {}
        if self.hf_token:
            paths["HF_TOKEN_PATH"] = HF_TOKEN
        if MODELSCOPE_LOGIN[0] in self.logins:
            paths |= {"MODELSCOPE_HOME": MODELSCOPE, "MODELSCOPE_CREDENTIALS_PATH": MODELSCOPE}
        return paths

    def of_endpoint(self) -> tuple[File, ...]:
        """The files of the engine alone."""
        certificate = SecretStr(self.certificate) if self.certificate else None
        return _files(
            {
                API_KEY: self.api_key,
                SCRAPE_TOKEN: self.scrape_token,
                TLS_CERTIFICATE: certificate,
                TLS_KEY: self.certificate_key,
            }
        )

    def marks(self, role: str) -> dict[str, str]:
        """A hash of each secret, for the labels of a container: it shows that a secret changed, and not the secret.

        A container keeps the secrets that it was started with, so it is replaced when a mark differs. Credentials for
        sources of models are left out: a renewed one is no reason to recreate a cluster.
        """
        secrets = {"ray_token": self.ray_token}
        if role == ENGINE:
            secrets |= {"api_key": self.api_key, "scrape_token": self.scrape_token}
        marks = {name: _mark(name, secret.get_secret_value()) for name, secret in secrets.items() if secret}
        if role == ENGINE and self.certificate:
            marks["certificate"] = hashlib.sha256(self.certificate.encode()).hexdigest()[:16]
        return marks


@lru_cache(maxsize=64)
def _mark(name: str, secret: str) -> str:
    return hashlib.scrypt(secret.encode(), salt=salt_of(name), **SCRYPT).hex()


def _files(contents: Mapping[str, SecretStr | None]) -> tuple[File, ...]:
    return tuple(
        File(path, f"{secret.get_secret_value()}\n".encode(), mode=0o600, secret=True)
        for path, secret in contents.items()
        if secret is not None
    )


@dataclass(frozen=True, slots=True)
class Contents:
    """The files for containers: those of this package, by their path there, and the secrets."""

    payload: Mapping[str, bytes] = field(default_factory=dict)
    """Whole in every container."""
    plugin: Mapping[str, bytes] = field(default_factory=dict)
    """What makes the vLLM plugin of accelerator `cpu` an installed distribution."""
    secrets: Secrets = field(default_factory=Secrets)

    def with_secrets(self, secrets: Secrets) -> Self:
        return replace(self, secrets=secrets)

    def of_node(self, config: ClusterConfig) -> tuple[File, ...]:
        """The files of a Ray node's container."""
        copied = {**self.payload, **(self.plugin if config.accelerator == "cpu" else {})}
        return (*(File(path, content) for path, content in copied.items()), *self.secrets.of_node())

    def of_engine(self, config: ClusterConfig) -> tuple[File, ...]:
        """The files of the engine's container."""
        return (*self.of_node(config), *self.secrets.of_endpoint())
