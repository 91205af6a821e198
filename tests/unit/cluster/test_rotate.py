"""Another token for a cluster that runs: kept when the head has it, and the old one whenever it has not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fake_host import FakeHost, Ran, Record
from tests.unit.support import RecordingReporter, config, good_host
from vllmray.cluster.rotate import rotate
from vllmray.cluster.run import UpOptions
from vllmray.cluster.spec.contents import LAUNCH, NODE, Secrets
from vllmray.cluster.state import by_role
from vllmray.cluster.up import up_head
from vllmray.config.models import ClusterConfig
from vllmray.errors import ClusterStateError, HostError, UserInterruptError
from vllmray.secrets.resolve import keep, of_head
from vllmray.secrets.store import API_KEY, RAY_TOKEN, SecretStore

OLD = "the-token-that-it-has"


@pytest.fixture
def store(tmp_path: Path) -> SecretStore:
    made = SecretStore(tmp_path / "state", "vllmray")
    made.keep(RAY_TOKEN, OLD)
    return made


def serving(store: SecretStore) -> FakeHost:
    host = good_host()
    up_head(host, of_head(settings(), store), UpOptions(wait=False), RecordingReporter())
    return host


def settings() -> ClusterConfig:
    return config(node_ip="10.0.0.1")


def rotate_token(host: FakeHost, store: SecretStore) -> None:
    def kept(secrets: Secrets) -> None:
        keep(secrets, store)

    rotate(host, settings(), "docker", UpOptions(keep=kept), RecordingReporter(), store)


def token_of(host: FakeHost, role: str) -> str | None:
    """What the container of that role was given."""
    found = by_role(host, "vllmray").get(role)
    if found is None:
        return None
    spec = host.records[found.id].spec
    (token,) = [file.content.decode().strip() for file in spec.files if file.path.endswith("/ray_token")]
    return token


def raises_at(program: str, error: BaseException) -> Callable[[FakeHost], None]:
    """The host fails so when the container with that program is started."""

    def arrange(host: FakeHost) -> None:
        usual = host.programs["python3"]

        def python(record: Record, argv: tuple[str, ...]) -> Ran:
            if argv[1] == program:
                raise error
            return usual(record, argv)

        host.programs["python3"] = python

    return arrange


def no_image(host: FakeHost) -> None:
    host.images.clear()


def test_a_rotated_token_is_stored_and_head_and_engine_have_it(store: SecretStore) -> None:
    host = serving(store)
    rotate_token(host, store)
    new = store.get(RAY_TOKEN)
    assert new == token_of(host, "head") == token_of(host, "engine")
    assert new not in (OLD, None)


@pytest.mark.parametrize(
    ("arrange", "error"),
    [
        (no_image, HostError),
        (raises_at(NODE, HostError("no space left")), HostError),
        (raises_at(LAUNCH, HostError("no space left")), HostError),
        (raises_at(NODE, RuntimeError("a defect")), RuntimeError),
        (raises_at(NODE, KeyboardInterrupt()), UserInterruptError),
    ],
    ids=["before anything", "the head", "the engine", "a defect at the head", "Ctrl-C at the head"],
)
def test_what_fails_before_a_head_runs_with_the_new_token_leaves_the_old_one_stored(
    arrange: Callable[[FakeHost], None], error: type[BaseException], store: SecretStore
) -> None:
    host = serving(store)
    arrange(host)
    with pytest.raises(error):
        rotate_token(host, store)
    assert token_of(host, "head") in (OLD, None)
    assert store.get(RAY_TOKEN) == OLD


def test_what_fails_when_the_head_runs_with_the_new_token_leaves_that_stored(store: SecretStore) -> None:
    host = serving(store)
    raises_at(LAUNCH, KeyboardInterrupt())(host)
    with pytest.raises(UserInterruptError):
        rotate_token(host, store)
    assert store.get(RAY_TOKEN) == token_of(host, "head") != OLD


def test_where_no_head_runs_nothing_is_rotated(store: SecretStore) -> None:
    with pytest.raises(ClusterStateError, match="no cluster vllmray here"):
        rotate_token(good_host(), store)
    host = serving(store)
    host.stop_and_remove(by_role(host, "vllmray")["engine"].id, timeout=0)
    with pytest.raises(ClusterStateError, match="without its engine; nothing was replaced") as caught:
        rotate(host, settings().typed_on("ssh://gpu2"), "docker", UpOptions(), RecordingReporter(), store)
    assert "`vllmray up --role head --host ssh://gpu2`" in str(caught.value.hint)
    assert store.get(RAY_TOKEN) == OLD


def test_a_cluster_whose_key_is_not_stored_here_is_not_restarted(store: SecretStore, tmp_path: Path) -> None:
    host = serving(store)
    before = {role: container.id for role, container in by_role(host, "vllmray").items()}
    other = SecretStore(tmp_path / "other", "vllmray")
    other.keep(RAY_TOKEN, OLD)
    with pytest.raises(ClusterStateError, match="no key for cluster vllmray on this machine"):
        rotate_token(host, other)
    assert {role: container.id for role, container in by_role(host, "vllmray").items()} == before
    assert other.get(API_KEY) is None
