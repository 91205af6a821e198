"""A cluster's secrets as files: made once, the same again, for this user alone."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from vllmray.errors import ConfigError
from vllmray.secrets.store import (
    API_KEY,
    API_KEY_HEADER,
    RAY_TOKEN,
    SCRAPE_TOKEN,
    TLS_KEY,
    TO_COME,
    PlannedStore,
    SecretStore,
    new,
)


@pytest.fixture
def store(tmp_path: Path) -> SecretStore:
    return SecretStore(tmp_path / "state", "lab")


@pytest.mark.parametrize(
    ("name", "form"), [(RAY_TOKEN, r"[0-9a-f]{64}"), (SCRAPE_TOKEN, r"[0-9a-f]{64}"), (API_KEY, r"sk-[0-9a-f]{64}")]
)
def test_a_secret_that_is_not_there_is_made_and_is_the_same_from_then_on(
    store: SecretStore, name: str, form: str, tmp_path: Path
) -> None:
    assert store.get(name) is None
    made = store.have(name)
    assert re.fullmatch(form, made)
    assert [store.have(name), store.get(name)] == [made, made]
    assert SecretStore(tmp_path / "state", "lab").get(name) == made
    assert store.path(name).read_text() == made + "\n"


def test_secrets_differ_from_cluster_to_cluster_and_from_kind_to_kind(store: SecretStore, tmp_path: Path) -> None:
    other = SecretStore(tmp_path / "state", "other")
    made = [one.have(name) for one in (store, other) for name in (RAY_TOKEN, SCRAPE_TOKEN, API_KEY)]
    assert len({text.removeprefix("sk-") for text in made}) == 6


def test_a_new_one_is_another_each_time() -> None:
    assert new(RAY_TOKEN) != new(RAY_TOKEN)
    assert re.fullmatch(r"[0-9a-f]{64}", new(RAY_TOKEN))
    assert re.fullmatch(r"sk-[0-9a-f]{64}", new(API_KEY))


def test_for_a_plan_what_is_kept_is_read_and_nothing_is_made(store: SecretStore, tmp_path: Path) -> None:
    planned = PlannedStore(tmp_path / "state", "lab")
    assert planned.have(RAY_TOKEN) == TO_COME
    assert not (tmp_path / "state").exists()
    made = store.have(API_KEY)
    assert planned.have(API_KEY) == made
    planned.keep(API_KEY, made)
    planned.keep(TLS_KEY, "PEM")
    assert list(planned.missing) == [RAY_TOKEN, TLS_KEY]
    assert [path.name for path in store.path(API_KEY).parent.iterdir()] == [API_KEY]


def test_what_is_kept_is_what_was_given(store: SecretStore) -> None:
    store.keep(API_KEY, "sk-one\nsk-two")
    assert store.get(API_KEY) == "sk-one\nsk-two"
    assert store.have(API_KEY) == "sk-one\nsk-two"
    store.keep(API_KEY, "sk-three")
    assert store.get(API_KEY) == "sk-three"
    assert store.get(API_KEY_HEADER) is None


def test_what_is_there_already_is_not_written_again(store: SecretStore) -> None:
    store.keep(RAY_TOKEN, "the text")
    before = store.path(RAY_TOKEN).stat()
    store.keep(RAY_TOKEN, "the text")
    assert store.path(RAY_TOKEN).stat().st_ino == before.st_ino


def test_every_file_and_folder_is_for_this_user_alone(store: SecretStore, tmp_path: Path) -> None:
    store.have(RAY_TOKEN)
    store.have(SCRAPE_TOKEN)
    store.keep(API_KEY_HEADER, "Authorization: Bearer x")
    store.keep(TLS_KEY, "PEM")
    modes = {
        str(path.relative_to(tmp_path)): stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "state").rglob("*")
    }
    assert modes == {
        "state/secrets": 0o700,
        "state/secrets/lab": 0o700,
        **{f"state/secrets/lab/{name}": 0o600 for name in (RAY_TOKEN, SCRAPE_TOKEN, API_KEY_HEADER, TLS_KEY)},
    }


@pytest.mark.parametrize("text", ["", "\n", "\n\n"])
def test_an_empty_file_is_no_secret_and_one_is_made_in_its_place(store: SecretStore, text: str) -> None:
    store.keep(API_KEY, "sk-other")
    store.keep(RAY_TOKEN, "the text")
    store.path(RAY_TOKEN).write_text(text)
    assert store.get(RAY_TOKEN) is None
    made = store.have(RAY_TOKEN)
    assert re.fullmatch(r"[0-9a-f]{64}", made)
    assert store.get(RAY_TOKEN) == made


@pytest.mark.parametrize("act", ["get", "have", "keep"])
def test_what_others_could_read_is_used_by_no_call(store: SecretStore, act: str) -> None:
    made = store.have(RAY_TOKEN)
    store.path(RAY_TOKEN).chmod(0o644)
    calls: dict[str, Callable[[], object]] = {
        "get": lambda: store.get(RAY_TOKEN),
        "have": lambda: store.have(RAY_TOKEN),
        "keep": lambda: store.keep(RAY_TOKEN, "the text"),
    }
    with pytest.raises(ConfigError, match="can be read by others") as caught:
        calls[act]()
    assert made not in f"{caught.value.message}{caught.value.details}{caught.value.hint}"


def test_bytes_that_are_no_text_are_an_error_without_them(store: SecretStore) -> None:
    store.have(RAY_TOKEN)
    store.path(RAY_TOKEN).write_bytes(b"half-a-secret\xff")
    with pytest.raises(ConfigError) as caught:
        store.get(RAY_TOKEN)
    assert str(store.path(RAY_TOKEN)) in caught.value.message
    assert "half-a-secret" not in f"{caught.value.message}{caught.value.details}{caught.value.hint}"
