"""Short-lived containers that answer a question, of several commands at once."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from tests.fake_host import FakeHost, Ran, Record
from vllmray.cluster.probe.short_lived import LEFT_AFTER_S, run_to_end
from vllmray.errors import BrokenConnectionError
from vllmray.hosts.base import ContainerSpec

SPEC = ContainerSpec(name="vllmray-probe", image="image:1", argv=("echo", "yes"), labels={"l": "1"})


def left(host: FakeHost, name: str, *, ended_ago: float | None) -> None:
    """One that another command has there: it runs, or has ended."""
    host.create_and_start(ContainerSpec(name=name, image="image:1", argv=("sleep",), labels=SPEC.labels))
    if ended_ago is not None:
        ended_at = datetime.fromtimestamp(time.time() - ended_ago, UTC).isoformat()
        host.named(name).becomes("exited", ended_at=ended_at)


def names(host: FakeHost) -> list[str]:
    return [record.spec.name for record in host.records.values()]


def test_two_commands_that_ask_at_once_each_get_their_answer() -> None:
    host = FakeHost()

    def asked_meanwhile(record: Record, argv: tuple[str, ...]) -> Ran:
        del host.programs["slow"]
        return Ran((f"slow, after {run_to_end(host, SPEC)[0]}",))

    host.programs["slow"] = asked_meanwhile
    slow = ContainerSpec(name=SPEC.name, image="image:1", argv=("slow",), labels=SPEC.labels)
    assert run_to_end(host, slow) == ["slow, after yes"]
    assert names(host) == []
    assert len({spec.name for spec in host.created}) == 2


def test_one_that_runs_or_has_just_ended_is_anothers_and_one_that_ended_long_ago_is_taken_away() -> None:
    host = FakeHost()
    left(host, "vllmray-probe", ended_ago=None)
    left(host, "vllmray-probe-1", ended_ago=1)
    left(host, "vllmray-probe-2", ended_ago=LEFT_AFTER_S + 1)
    assert run_to_end(host, SPEC) == ["yes"]
    assert names(host) == ["vllmray-probe", "vllmray-probe-1"]


def test_one_left_from_before_that_does_not_go_is_no_reason_not_to_ask() -> None:
    host = FakeHost()
    left(host, "vllmray-probe-2", ended_ago=LEFT_AFTER_S + 1)
    host.stuck = {"vllmray-probe-2"}
    assert run_to_end(host, SPEC) == ["yes"]


def test_an_answer_that_breaks_off_is_told_with_what_could_not_be_removed_then() -> None:
    host = FakeHost()

    def broken(container: str, **_: object) -> object:
        host.stuck = {host.named(container).spec.name}
        raise BrokenConnectionError("fake://host: could not read the log")

    host.logs = broken  # type: ignore[assignment,method-assign]
    with pytest.raises(BrokenConnectionError, match="could not read the log") as caught:
        run_to_end(host, SPEC)
    assert f"Not removed: {names(host)[0]} on fake://host (" in str(caught.value.hint)
