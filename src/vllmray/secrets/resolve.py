"""Which secrets a cluster has: those that the settings name, else the stored ones, else new ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pydantic import SecretStr

from vllmray.config.models import ClusterConfig
from vllmray.config.values import check_key, check_token
from vllmray.errors import ClusterStateError, ConfigError, HostError
from vllmray.secrets.files import text_of
from vllmray.secrets.store import (
    API_KEY,
    API_KEY_HEADER,
    ENDPOINT_CERTIFICATE,
    RAY_TOKEN,
    SCRAPE_TOKEN,
    SecretStore,
)

if TYPE_CHECKING:
    from vllmray.cluster.spec.contents import Secrets
    from vllmray.secrets.certificate import Certificate


def of_head(config: ClusterConfig, store: SecretStore) -> ClusterConfig:
    """The settings with every secret of a head and its engine; newly generated ones are stored too.

    Raises:
        ConfigError: the file of a secret can't be read, is invalid, or others can read it.
    """
    token = stated_token(config) or store.have(RAY_TOKEN)
    scrape = config.scrape_token.get_secret_value() if config.scrape_token else store.have(SCRAPE_TOKEN)
    keys = None if config.no_api_key else stated_keys(config) or store.have(API_KEY)
    return config.model_copy(
        update={
            "ray_token": SecretStr(token),
            "scrape_token": SecretStr(scrape),
            "api_key": SecretStr(keys) if keys else None,
        }
    )


def of_worker(config: ClusterConfig, store: SecretStore) -> ClusterConfig:
    """The settings with the token of the cluster that a worker is to join.

    Raises:
        HostError: there is none, and no head accepts a worker without it.
        ConfigError: as of_head.
    """
    token = stated_token(config) or store.get(RAY_TOKEN)
    if token is None:
        raise HostError(
            f"no token for cluster {config.cluster}: the head {config.head_ip} accepts no worker without it",
            hint=f"`vllmray token{config.cluster_option}` on the head's host shows it: put it into a file here (mode "
            "600) and add --token-file FILE.",
        )
    return config.model_copy(update={"ray_token": SecretStr(token)})


def stored(store: SecretStore, name: str, what: str) -> str:
    """A stored secret, by its name in the store.

    Raises:
        ClusterStateError: there is none; `what` names it in the message.
    """
    found = store.get(name)
    if found is None:
        raise ClusterStateError(
            f"no {what} for cluster {store.cluster} on this machine",
            hint="`vllmray up --role head` creates it: run this command on that machine, as the same user.",
        )
    return found


def keep(secrets: Secrets, store: SecretStore) -> None:
    """Store the secrets of a cluster, for later commands and clients.

    Only once the cluster runs with them: `vllmray key` and `vllmray token` show what is stored, and until then the
    running cluster may have others.
    """
    for name, secret in (
        (RAY_TOKEN, secrets.ray_token),
        (SCRAPE_TOKEN, secrets.scrape_token),
        (API_KEY, secrets.api_key),
    ):
        if secret:
            store.keep(name, secret.get_secret_value())
    if secrets.api_key:
        store.keep(API_KEY_HEADER, f"Authorization: Bearer {secrets.api_key.get_secret_value().splitlines()[0]}")
    if secrets.certificate:
        store.keep(ENDPOINT_CERTIFICATE, secrets.certificate.rstrip("\n"))


def certificate_of(config: ClusterConfig, store: SecretStore) -> Certificate | None:
    """The endpoint's certificate, for the address in config.node_ip.

    Raises:
        ConfigError: the user's own can't be used.
    """
    if not config.serves_https:
        return None
    from vllmray.secrets.certificate import of_files, self_signed

    if config.tls:
        return self_signed(str(config.node_ip), store)
    return of_files(str(config.ssl_certfile), str(config.ssl_keyfile))


def stated_token(config: ClusterConfig) -> str | None:
    """Ray's token from the settings; a file takes precedence over a variable."""
    if config.token_file:
        return _from_file("--token-file", config.token_file, _token)
    return config.ray_token.get_secret_value() if config.ray_token else None


def stated_keys(config: ClusterConfig) -> str | None:
    """The endpoint's keys from the settings, one a line; a file takes precedence over a variable."""
    if config.api_key_file:
        return _from_file("--api-key-file", config.api_key_file, _keys)
    return config.api_key.get_secret_value() if config.api_key else None


def _token(text: str) -> str:
    return check_token(SecretStr(text.strip())).get_secret_value()


def _keys(text: str) -> str:
    keys = [check_key(SecretStr(line.strip())).get_secret_value() for line in text.splitlines() if line.strip()]
    if not keys:
        raise ValueError("it is empty")
    return "\n".join(keys)


def _from_file(option: str, name: str, check: Callable[[str], str]) -> str:
    text = text_of(option, name, hidden=True)
    try:
        return check(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {name}: {error}") from None
