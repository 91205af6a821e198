"""`down` on the command line: what --force does where there are two hosts, and who a command says it is."""

from __future__ import annotations

import os
import pwd
import socket
from pathlib import Path

import pytest

from tests.fake_host import FakeHost
from tests.unit.cli.test_cli import exit_code
from tests.unit.support import RecordingReporter
from vllmray.cli.down import _on_each
from vllmray.cli.wiring import holder
from vllmray.cluster.down import force_down
from vllmray.errors import HostError
from vllmray.hosts.base import ContainerSpec, Host


def with_head(*stuck: str) -> FakeHost:
    host = FakeHost()
    labels = {"io.vllmray.cluster": "a", "io.vllmray.role": "head"}
    host.create_and_start(ContainerSpec(name="a-head", image="image:1", argv=("sleep", "1"), labels=labels))
    host.stuck = set(stuck)
    return host


def test_by_force_every_host_has_its_turn_before_a_failure_is_told() -> None:
    hosts = [with_head("a-head"), with_head(), with_head("a-head")]
    with pytest.raises(HostError) as caught:
        _on_each(hosts, lambda host: force_down(host, None, RecordingReporter()))
    assert caught.value.message == "; ".join(["fake://host: could not remove a-head"] * 2)
    assert caught.value.details == "a-head: it does not die\na-head: it does not die"
    assert [len(host.records) for host in hosts] == [1, 0, 1]


def test_what_was_removed_from_all_hosts_is_told_as_one() -> None:
    hosts: list[Host] = [with_head(), with_head()]
    assert _on_each(hosts, lambda host: force_down(host, "a", RecordingReporter())) == ["a-head", "a-head"]


def test_with_nothing_there_force_has_nothing_to_remove_and_makes_nothing(
    nowhere: Path, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code("down", "--runtime", "native", "--force") == 0
    assert capsys.readouterr().out == "nothing to remove\n"
    assert [path.name for path in state.iterdir()] == ["logs"]  # of this run, as every command leaves it that acts


def test_a_command_says_who_types_it_where_and_its_process() -> None:
    who = holder("up")
    assert who.who == f"{pwd.getpwuid(os.geteuid()).pw_name}@{socket.gethostname()}"
    assert (who.command, who.process) == ("vllmray up", os.getpid())
