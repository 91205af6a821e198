"""The short-lived containers that list, download and send model files; pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import SecretStr

from vllmray.cluster.spec.containers import CACHE, cache_mount
from vllmray.cluster.spec.contents import HOME, SCRIPTS, Secrets
from vllmray.cluster.spec.mounts import model_mount
from vllmray.cluster.spec.probes import brief_spec, with_program
from vllmray.config.models import ClusterConfig
from vllmray.hosts.base import ContainerSpec, File

PORT = 6385
"""Where a host gives model files to the next one, while they are copied. Between Ray's ports (ray/ports.py)."""
REQUEST = f"{SCRIPTS}/share.json"
FOLDER = f"{SCRIPTS}/secrets"


@dataclass(frozen=True, slots=True)
class TransferSecrets:
    """Of one transfer."""

    token: SecretStr
    certificate: str
    """PEM; every host of the transfer trusts this one alone."""
    key: SecretStr


def listing_spec(config: ClusterConfig, request: Mapping[str, Any]) -> ContainerSpec:
    """One that runs payload/model/listing.py."""
    spec = replace(brief_spec(config), network="none", ip=None, mounts=(cache_mount(config), *model_mount(config)))
    return with_program(spec, "model/listing.py", json.dumps({"cache": CACHE, **request}))


def fetch_spec(config: ClusterConfig, revision: str) -> ContainerSpec:
    """One that runs payload/model/fetch.py, with the hub's token as a file; it may use the network, whatever
    HF_HUB_OFFLINE says for the nodes.
    """
    token = Secrets(hf_token=config.hf_token)
    env = {**config.environment, "HF_HOME": CACHE, **token.variables(), "HF_HUB_OFFLINE": "0", "PYTHONUNBUFFERED": "1"}
    spec = replace(brief_spec(config), env=env, home=HOME, mounts=(cache_mount(config),), files=token.of_node())
    return with_program(spec, "model/fetch.py", json.dumps({"model": config.model, "revision": revision}))


@dataclass(frozen=True, slots=True)
class Transfer:
    """What every host of a transfer is told."""

    root: str
    """The folder, as containers see it."""
    entries: Sequence[Mapping[str, Any]]
    texts: Mapping[str, str]
    secrets: TransferSecrets


def share_spec(config: ClusterConfig, transfer: Transfer, address: str, sources: Sequence[str]) -> ContainerSpec:
    """One that runs payload/model/share.py.

    Args:
        address: of this host, for the others.
        sources: addresses of the hosts to get the files from, the first one first; empty on the source.
    """
    secret = {"token": transfer.secrets.token, "key": transfer.secrets.key}
    request = {
        "root": transfer.root,
        "entries": transfer.entries,
        "texts": transfer.texts,
        "sources": [[source, PORT] for source in sources],
        "listen": [address, PORT],
        **{f"{name}_file": f"{FOLDER}/share-{name}" for name in ("token", "certificate", "key")},
    }
    files = [
        File(f"{FOLDER}/share-{name}", text.get_secret_value().encode(), 0o600, secret=True)
        for name, text in secret.items()
    ]
    files.append(File(f"{FOLDER}/share-certificate", transfer.secrets.certificate.encode()))
    files.append(File(REQUEST, json.dumps(request).encode()))
    spec = replace(brief_spec(config), files=tuple(files), mounts=(cache_mount(config),))
    return with_program(spec, "model/share.py", REQUEST)
