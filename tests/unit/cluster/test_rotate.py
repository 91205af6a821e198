"""Another token for a cluster that runs: kept when the head has it, and the old one whenever it has not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from pydantic import SecretStr

from tests.fake_host import FakeHost, Ran, Record
from tests.unit.support import RecordingReporter, config, good_host
from vllmray.cluster.rotate import rotate, running_head
from vllmray.cluster.run import UpOptions
from vllmray.cluster.spec.contents import LAUNCH, NODE, Secrets
from vllmray.cluster.state import by_role
from vllmray.cluster.up import up_head
from vllmray.config.models import ClusterConfig
from vllmray.errors import ClusterStateError, HostError, UserInterruptError

OLD, NEW = "the-token-that-it-has", "the-token-that-it-is-to-have"


def with_token(token: str) -> ClusterConfig:
    return config(node_ip="10.0.0.1").model_copy(update={"ray_token": SecretStr(token)})


@dataclass
class Kept:
    """What is kept of the token."""

    token: str = OLD

    def keep(self, secrets: Secrets) -> None:
        assert secrets.ray_token
        self.token = secrets.ray_token.get_secret_value()

    def put_back(self) -> None:
        self.token = OLD


def serving() -> FakeHost:
    host = good_host()
    up_head(host, with_token(OLD), UpOptions(wait=False), RecordingReporter())
    return host


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


def test_a_rotated_token_is_kept_and_head_and_engine_have_it() -> None:
    host, kept = serving(), Kept()
    rotate(host, with_token(NEW), UpOptions(keep=kept.keep), RecordingReporter(), back=kept.put_back)
    assert kept.token == token_of(host, "head") == token_of(host, "engine") == NEW


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
def test_what_fails_before_a_head_runs_with_the_new_token_leaves_the_old_one_kept(
    arrange: Callable[[FakeHost], None], error: type[BaseException]
) -> None:
    host, kept = serving(), Kept()
    arrange(host)
    with pytest.raises(error):
        rotate(host, with_token(NEW), UpOptions(keep=kept.keep), RecordingReporter(), back=kept.put_back)
    assert token_of(host, "head") in (OLD, None)
    assert kept.token == OLD


def test_what_fails_when_the_head_runs_with_the_new_token_leaves_that_kept() -> None:
    host, kept = serving(), Kept()
    raises_at(LAUNCH, KeyboardInterrupt())(host)
    with pytest.raises(UserInterruptError):
        rotate(host, with_token(NEW), UpOptions(keep=kept.keep), RecordingReporter(), back=kept.put_back)
    assert kept.token == token_of(host, "head") == NEW


def test_where_no_head_runs_nothing_is_rotated() -> None:
    with pytest.raises(ClusterStateError, match="no cluster vllmray here"):
        running_head(good_host(), config(), "docker")
    host = serving()
    host.stop_and_remove(by_role(host, "vllmray")["engine"].id, timeout=0)
    with pytest.raises(ClusterStateError, match="without its engine; nothing was replaced") as caught:
        running_head(host, config().typed_on("ssh://gpu2"), "docker")
    assert "`vllmray up --role head --host ssh://gpu2`" in str(caught.value.hint)
