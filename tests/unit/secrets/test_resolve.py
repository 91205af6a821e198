"""Which secrets a cluster has: stated in a file, stated in a variable, kept, made."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tests.unit.support import config
from vllmray.cluster.spec.contents import Secrets
from vllmray.config.models import ClusterConfig
from vllmray.config.settings import load
from vllmray.errors import ConfigError, HostError
from vllmray.secrets import store as names
from vllmray.secrets.certificate import Certificate
from vllmray.secrets.resolve import certificate_of, keep, of_head, of_worker, stated_keys, stated_token
from vllmray.secrets.store import SecretStore

TOKEN, OTHER_TOKEN = "token-of-sixteen-and-more", "another-of-sixteen-and-more"


@pytest.fixture
def store(tmp_path: Path) -> SecretStore:
    return SecretStore(tmp_path / "state", "vllmray")


@pytest.fixture
def put(tmp_path: Path) -> Any:
    """Writes a file of a user's own and gives its name."""

    def written(text: str | bytes, *, mode: int = 0o600) -> str:
        path = tmp_path / "secret-file"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(mode)
        return str(path)

    return written


def plain(settled: ClusterConfig) -> dict[str, str | None]:
    """The secrets of settings, to be compared."""
    secrets = {name: getattr(settled, name) for name in ("ray_token", "api_key", "scrape_token")}
    return {name: secret.get_secret_value() if secret else None for name, secret in secrets.items()}


def kept_head(settings: ClusterConfig, store: SecretStore) -> ClusterConfig:
    """As `up` does it: settled, and kept when the cluster has them."""
    settled = of_head(settings, store)
    keep(Secrets.of(settled), store)
    return settled


def kept_certificate(settings: ClusterConfig, store: SecretStore) -> Certificate | None:
    made = certificate_of(settings, store)
    keep(Secrets(certificate=made.chain if made else None), store)
    return made


def refused(settings: ClusterConfig, store: SecretStore) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        of_head(settings, store)
    return caught.value


def test_a_head_has_every_secret_and_keeps_it(store: SecretStore) -> None:
    settled = kept_head(config(), store)
    made = plain(settled)
    assert re.fullmatch(r"[0-9a-f]{64}", str(made["ray_token"]))
    assert re.fullmatch(r"[0-9a-f]{64}", str(made["scrape_token"]))
    assert re.fullmatch(r"sk-[0-9a-f]{64}", str(made["api_key"]))
    assert {name: store.get(name) for name in made} == made
    assert store.get(names.API_KEY_HEADER) == f"Authorization: Bearer {made['api_key']}"
    assert plain(kept_head(config(), store)) == made


def test_a_head_shows_no_secret_when_it_is_printed(store: SecretStore) -> None:
    settled = kept_head(config(), store)
    for text in (repr(settled), str(settled), settled.model_dump_json()):
        assert not [secret for secret in plain(settled).values() if str(secret) in text]


def test_a_file_wins_over_a_variable_and_that_over_what_is_kept(store: SecretStore, put: Any) -> None:
    store.keep(names.RAY_TOKEN, "the-kept-one-of-the-cluster")
    stated = config(ray_token=SecretStr(TOKEN))
    assert plain(of_worker(config(), store))["ray_token"] == "the-kept-one-of-the-cluster"
    assert plain(of_worker(stated, store))["ray_token"] == TOKEN
    assert plain(kept_head(stated, store))["ray_token"] == TOKEN
    assert store.get(names.RAY_TOKEN) == TOKEN
    both = stated.model_copy(update={"token_file": put(f"\n  {OTHER_TOKEN} \n")})
    assert stated_token(both) == OTHER_TOKEN
    assert plain(kept_head(both, store))["ray_token"] == OTHER_TOKEN
    assert plain(of_worker(both, store))["ray_token"] == OTHER_TOKEN
    assert plain(kept_head(config(), store))["ray_token"] == OTHER_TOKEN


def test_keys_have_the_same_order_and_may_be_several_in_a_file(store: SecretStore, put: Any) -> None:
    kept = plain(kept_head(config(), store))["api_key"]
    assert plain(kept_head(config(), store))["api_key"] == kept
    stated = config(api_key=SecretStr("sk-variable"), scrape_token=SecretStr("scraper"))
    assert plain(kept_head(stated, store)) | {"ray_token": None} == {
        "ray_token": None,
        "api_key": "sk-variable",
        "scrape_token": "scraper",
    }
    both = stated.model_copy(update={"api_key_file": put("sk-one\r\n\n sk-two \n")})
    assert stated_keys(both) == "sk-one\nsk-two"
    assert plain(kept_head(both, store))["api_key"] == "sk-one\nsk-two"
    assert store.get(names.API_KEY) == "sk-one\nsk-two"
    assert store.get(names.API_KEY_HEADER) == "Authorization: Bearer sk-one"
    assert store.get(names.SCRAPE_TOKEN) == "scraper"


def test_an_open_endpoint_has_no_key_but_a_token_and_what_was_kept_stays(store: SecretStore, put: Any) -> None:
    stated = config(no_api_key=True, api_key=SecretStr("sk-variable"), api_key_file=put("sk-one\n"))
    assert plain(kept_head(stated, store))["api_key"] is None
    assert store.get(names.API_KEY) is None
    assert store.get(names.API_KEY_HEADER) is None
    assert store.get(names.RAY_TOKEN)
    store.keep(names.API_KEY, "sk-kept")
    assert plain(kept_head(config(no_api_key=True), store))["api_key"] is None
    assert store.get(names.API_KEY) == "sk-kept"


def test_the_users_own_variables_become_those_secrets(folder: Path, store: SecretStore) -> None:
    (folder / ".env").write_text(f"VLLM_API_KEY=sk-of-vllm\nVLLMRAY_RAY_TOKEN={TOKEN}\n")
    assert plain(load({}, environ={}).config) == {"ray_token": TOKEN, "api_key": "sk-of-vllm", "scrape_token": None}
    (folder / "token").write_text(OTHER_TOKEN)
    (folder / "token").chmod(0o600)
    named = load({"token_file": str(folder / "token")}, environ={}).config
    assert plain(of_worker(named, store))["ray_token"] == OTHER_TOKEN


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a key is one line"),
        (" \n\n", "a key is one line"),
        ("short-hidden", "too short for a token: the least is 16 characters"),
        ("hidden-hidden-hidden hidden", "a key is one line"),
        (f"{TOKEN}\n{OTHER_TOKEN}", "a key is one line"),
        ("hidden-hidden-hidden-\N{LATIN SMALL LETTER E WITH ACUTE}", "a key is one line"),
        ("hidden-hidden-\0hidden", "a key is one line"),
        (b"hidden-hidden-hidden\xff", "is not a text file"),
    ],
)
def test_a_file_that_holds_no_token_is_named_and_not_shown(
    text: str | bytes, words: str, store: SecretStore, put: Any
) -> None:
    stated = config(token_file=put(text))
    for error in (refused(stated, store), refused_worker(stated, store)):
        said = f"{error.message}{error.details}{error.hint}"
        assert error.message.startswith(f"--token-file: {stated.token_file}")
        assert words in error.message
        assert "hidden" not in said
        assert TOKEN not in said
    assert store.get(names.RAY_TOKEN) is None


def refused_worker(settings: ClusterConfig, store: SecretStore) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        of_worker(settings, store)
    assert caught.value.__cause__ is None  # whose text could show what is in the file, with --debug
    return caught.value


@pytest.mark.parametrize("text", ["", "\n \n", "sk-hidden\nsk hidden\n", "sk-hidden-\N{EN DASH}", b"\xffsk-hidden"])
def test_a_file_that_holds_no_keys_is_named_and_not_shown(text: str | bytes, store: SecretStore, put: Any) -> None:
    stated = config(api_key_file=put(text))
    error = refused(stated, store)
    assert error.message.startswith(f"--api-key-file: {stated.api_key_file}")
    assert "hidden" not in f"{error.message}{error.details}{error.hint}"
    assert store.get(names.API_KEY) is None


def test_a_file_that_others_can_read_or_that_is_not_there_is_refused_by_name(
    store: SecretStore, put: Any, tmp_path: Path
) -> None:
    readable = put(TOKEN, mode=0o644)
    error = refused(config(token_file=readable), store)
    assert error.message == f"--token-file: {readable} can be read by others"
    assert TOKEN not in f"{error.message}{error.details}{error.hint}"
    missing = f"{tmp_path}/missing"
    assert refused(config(token_file=missing), store).message == (
        f"--token-file: can't read {missing}: No such file or directory"
    )
    assert str(tmp_path) in refused(config(api_key_file=str(tmp_path)), store).message


def test_a_file_may_be_named_from_the_home_folder(
    store: SecretStore, put: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    put(TOKEN)
    assert stated_token(config(token_file="~/secret-file")) == TOKEN
    error = refused(config(token_file="~nobody-of-that-name/file"), store)
    assert error.message.startswith("--token-file: ")


def test_a_worker_without_a_token_is_told_where_it_is_and_leaves_nothing(store: SecretStore, tmp_path: Path) -> None:
    for cluster, option in (("vllmray", ""), ("lab", " --cluster lab")):
        with pytest.raises(HostError) as caught:
            of_worker(config(cluster=cluster, head_ip="10.0.0.1"), store)
        assert caught.value.exit_code == 3
        assert caught.value.message == (
            f"no token for cluster {cluster}: the head 10.0.0.1 accepts no worker without it"
        )
        assert f"`vllmray token{option}`" in str(caught.value.hint)
    assert list(tmp_path.iterdir()) == []


def test_a_workers_token_is_kept_only_once_a_head_has_taken_it(store: SecretStore, tmp_path: Path, put: Any) -> None:
    settled = of_worker(config(token_file=put(TOKEN)), store)
    assert not (tmp_path / "state").exists()
    keep(Secrets.of(settled), store)
    assert store.get(names.RAY_TOKEN) == TOKEN
    assert plain(of_worker(config(), store))["ray_token"] == TOKEN
    assert plain(settled) == {"ray_token": TOKEN, "api_key": None, "scrape_token": None}


def test_settings_without_a_token_leave_none(store: SecretStore, tmp_path: Path) -> None:
    keep(Secrets.of(config()), store)
    assert list(tmp_path.iterdir()) == []


def test_a_self_signed_certificate_is_for_the_heads_address_and_is_kept_for_clients(store: SecretStore) -> None:
    settings = config(tls="self-signed", node_ip="10.0.0.1")
    made = kept_certificate(settings, store)
    assert made is not None
    assert "10.0.0.1" in made.names
    assert store.get(names.ENDPOINT_CERTIFICATE) == made.chain.rstrip("\n")
    assert kept_certificate(settings, store) == made
    moved = kept_certificate(settings.model_copy(update={"node_ip": "10.0.0.2"}), store)
    assert moved is not None
    assert "10.0.0.2" in moved.names
    assert store.get(names.ENDPOINT_CERTIFICATE) == moved.chain.rstrip("\n") != made.chain.rstrip("\n")


def test_an_endpoint_without_tls_has_no_certificate(store: SecretStore, tmp_path: Path) -> None:
    assert kept_certificate(config(node_ip="10.0.0.1"), store) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root, to give files to other users")
def test_a_token_that_another_user_put_there_is_refused(store: SecretStore, put: Any) -> None:
    name = put(TOKEN)
    os.chown(name, 54321, 54321)
    assert refused(config(token_file=name), store).message == f"--token-file: {name} belongs to another user"
