"""A cluster's secrets for commands: where they are stored, which containers get them, how a client uses them."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from vllmray.errors import ConfigError
from vllmray.secrets.store import (
    API_KEY,
    API_KEY_HEADER,
    ENDPOINT_CERTIFICATE,
    RAY_TOKEN,
    SCRAPE_TOKEN,
    TLS_CERTIFICATE,
    TLS_KEY,
    PlannedStore,
    SecretStore,
)

if TYPE_CHECKING:
    from pydantic import SecretStr

    from vllmray.cli.wiring import Target
    from vllmray.cluster.spec.contents import Secrets
    from vllmray.config.models import ClusterConfig
    from vllmray.endpoint.chat import Endpoint
    from vllmray.output.tables import Access


def store_of(cluster: str) -> SecretStore:
    """The store of a cluster's secrets, in this user's state folder."""
    from vllmray.config.settings import state_folder

    return SecretStore(state_folder(), cluster)


def planned_store(cluster: str) -> PlannedStore:
    """The same store for a dry run, which writes nothing."""
    from vllmray.config.settings import state_folder

    return PlannedStore(state_folder(), cluster)


def with_secrets(config: ClusterConfig, role: str, store: SecretStore | None = None) -> ClusterConfig:
    """The settings with the secrets that a node of that role needs; for a head, missing ones are generated.

    Args:
        store: where they are stored; by default this user's store.

    Raises:
        HostError: a worker without a token.
        ConfigError: a file of a secret, or a certificate, can't be used.
    """
    from vllmray.secrets.resolve import certificate_of, of_head, of_worker

    store = store or store_of(config.cluster)
    logins_of(config)  # before anything else, to be refused early
    if role == "worker":
        return of_worker(config, store)
    if config.ssl_certfile:
        certificate_of(config, store)
    return of_head(config, store)


def kept_secret(cluster: str, name: str, what: str) -> str:
    """A secret in this user's store; secrets.resolve.stored() says more."""
    from vllmray.secrets.resolve import stored

    return stored(store_of(cluster), name, what)


def keep_for(cluster: str) -> Callable[[Secrets], None]:
    """A function that stores a cluster's secrets on this machine."""
    from vllmray.secrets.resolve import keep

    return lambda secrets: keep(secrets, store_of(cluster))


def has_address(config: ClusterConfig) -> bool:
    """Whether the endpoint's address is known, and not a placeholder of a dry run."""
    try:
        ipaddress.ip_address(str(config.node_ip))
    except ValueError:
        return False
    return True


def secrets_for(config: ClusterConfig, store: SecretStore | None = None) -> Secrets:
    """The secrets for the containers, from settings with secrets; store as for with_secrets()."""
    from dataclasses import replace

    from vllmray.cluster.spec.contents import Secrets
    from vllmray.secrets.resolve import certificate_of

    certificate = certificate_of(config, store or store_of(config.cluster))
    found = replace(Secrets.of(config), logins=logins_of(config))
    if certificate is None:
        return found
    return replace(found, certificate=certificate.chain, certificate_key=certificate.key)


def worker_secrets(config: ClusterConfig) -> Secrets:
    """The secrets for a worker's container, from settings with secrets; only the head gets the endpoint's."""
    from vllmray.cluster.spec.contents import Secrets

    return Secrets(config.ray_token, config.hf_token, logins=logins_of(config))


def logins_of(config: ClusterConfig) -> dict[str, SecretStr]:
    """The nodes' files with credentials for ModelScope or S3, by their path, if the model is there.

    Raises:
        ConfigError: the S3 credentials are incomplete.
    """
    from pydantic import SecretStr

    from vllmray.cluster.spec import contents
    from vllmray.config.values import is_on_s3
    from vllmray.hub import credentials
    from vllmray.hub.read import uses_modelscope

    found: dict[str, SecretStr] = {}
    if config.modelscope_api_token and uses_modelscope(config.environment):
        endpoint = config.environment.get("MODELSCOPE_ENDPOINT")
        login = SecretStr(credentials.modelscope_login(config.modelscope_api_token.get_secret_value(), endpoint))
        found |= dict.fromkeys(contents.MODELSCOPE_LOGIN, login)
    if is_on_s3(config.model):
        key_id, secret, session = (
            login.get_secret_value() if login else None
            for login in (config.aws_access_key_id, config.aws_secret_access_key, config.aws_session_token)
        )
        if bool(key_id) != bool(secret) or (session and not secret):
            raise ConfigError(
                "incomplete S3 credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY belong together",
                hint="Set both, in .env or the environment; or neither, if the hosts have an IAM role.",
            )
        if key_id and secret:
            found[contents.AWS_CREDENTIALS] = SecretStr(credentials.aws_credentials(key_id, secret, session))
    return found


def places_for(config: ClusterConfig, role: str, store: PlannedStore) -> dict[str, Path]:
    """The files of this machine that have the settings' secrets, or will have them, by their path in a container."""
    from vllmray.cluster.spec import contents

    if role == "worker" and config.token_file:
        return {contents.RAY_TOKEN: Path(config.token_file).expanduser().absolute()}
    named = (
        (contents.RAY_TOKEN, RAY_TOKEN, config.ray_token),
        (contents.SCRAPE_TOKEN, SCRAPE_TOKEN, config.scrape_token),
        (contents.API_KEY, API_KEY, config.api_key),
    )
    kept = (found for found in named if found[2] and found[2].get_secret_value() == store.have(found[1]))
    places = {path: store.path(name) for path, name, _ in kept}
    if config.serves_https and has_address(config):
        certificate, key = store.path(TLS_CERTIFICATE), store.path(TLS_KEY)
        if config.ssl_certfile and config.ssl_keyfile:
            certificate, key = Path(config.ssl_certfile).absolute(), Path(config.ssl_keyfile).absolute()
        places |= {contents.TLS_CERTIFICATE: certificate, contents.TLS_KEY: key}
    return places


def access_to(config: ClusterConfig) -> Access:
    """How a client reaches the endpoint of settings with secrets."""
    from vllmray.output.tables import Access
    from vllmray.secrets.resolve import certificate_of

    store = store_of(config.cluster)
    certificate = certificate_of(config, store)
    host = certificate.host(str(config.node_ip)) if certificate else config.node_ip
    return Access(
        url=f"{'https' if certificate else 'http'}://{host}:{config.port}/v1",
        header_file=None if config.no_api_key else store.path(API_KEY_HEADER),
        certificate_file=store.path(ENDPOINT_CERTIFICATE) if config.tls else None,
    )


def client_of(cluster: str, url: str) -> Endpoint:
    """A client of a cluster's endpoint, with the stored API key and certificate."""
    from vllmray.endpoint.chat import Endpoint

    store = store_of(cluster)
    keys = store.get(API_KEY)
    certificate = store.get(ENDPOINT_CERTIFICATE) if url.startswith("https:") else None
    return Endpoint(url, keys.splitlines()[0] if keys else None, certificate=certificate)


def caller_on(target: Target) -> str | None:
    """UID:GID of the caller, if the containers' host is this machine; None for root."""
    return caller() if target.runtime == "docker" and target.host.address.startswith("unix://") else None


def caller() -> str | None:
    """UID:GID of the caller; None for root."""
    return f"{os.geteuid()}:{os.getegid()}" if os.geteuid() != 0 else None


class StoreKeeper:
    """A cluster's secrets in this user's store, as `up` of all hosts uses them (cluster/phases/base.py, Keeper)."""

    def __init__(self, cluster: str) -> None:
        self._store = store_of(cluster)

    def knows(self, config: ClusterConfig, name: str) -> bool:
        """Whether the settings or the store have it; also where the settings say that there is none."""
        stated = {
            RAY_TOKEN: config.ray_token or config.token_file,
            SCRAPE_TOKEN: config.scrape_token,
            API_KEY: config.api_key or config.api_key_file or config.no_api_key,
        }
        return bool(stated[name]) or self._store.get(name) is not None

    def with_secrets(self, config: ClusterConfig, role: str) -> ClusterConfig:
        """As the function of that name."""
        return with_secrets(config, role, self._store)

    def of(self, config: ClusterConfig, role: str) -> Secrets:
        """Those for the containers of a role, of settings with secrets."""
        return worker_secrets(config) if role == "worker" else secrets_for(config, self._store)

    def keep(self, secrets: Secrets) -> None:
        """Store them."""
        from vllmray.secrets.resolve import keep

        keep(secrets, self._store)
