"""As whom containers run, against a host in memory."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.fake_host import FakeHost
from tests.unit.support import RecordingReporter, config, good_host, probe_answer, ray_node, seen
from vllmray.cluster.probe.user import QUESTION
from vllmray.cluster.run import Outcome, UpOptions
from vllmray.cluster.up import up_head, up_worker
from vllmray.errors import ClusterStateError
from vllmray.hosts.base import ContainerSpec

ME = "1000:1001"
READY = seen(ray_node("10.0.0.1", head=True), ray_node("10.0.0.2"), phase="ready")
OPTIONS = UpOptions(caller=ME)


def host_with(image_user: str = "", *, readable: bool = True) -> FakeHost:
    host = good_host(READY, readable=readable)
    host.images["image:1"] = replace(host.images["image:1"], user=image_user)
    return host


def up(host: FakeHost, options: UpOptions = OPTIONS, **settings: object) -> tuple[Outcome, RecordingReporter]:
    reporter = RecordingReporter()
    return up_head(host, config(**settings), options, reporter), reporter


def users(host: FakeHost) -> set[str | None]:
    """Of the containers that go on."""
    return {record.spec.user for record in host.records.values()}


def questions(host: FakeHost) -> list[ContainerSpec]:
    return [spec for spec in host.created if spec.argv[-1] == QUESTION]


@pytest.mark.parametrize("root", ["", "root", "0", "0:0", "root:root", "0:root"])
def test_in_roots_place_containers_run_as_the_caller(root: str) -> None:
    host = host_with(root)
    outcome, reporter = up(host)
    assert users(host) == {ME} == {outcome.config.user}
    assert "warning" not in reporter.text()
    (look,) = [spec for spec in host.created if "node_ip" in " ".join(spec.argv) and "probe" in spec.name]
    assert look.user == ME  # so that what it says of the cache folder is of the user who will write there


def test_a_worker_runs_as_who_types_its_command() -> None:
    host = good_host(READY, probes=[probe_answer(node_ip="10.0.0.2")])
    up_worker(host, config(head_ip="10.0.0.1"), OPTIONS, RecordingReporter())
    assert users(host) == {ME}


def test_whether_that_user_can_read_what_nodes_need_is_asked_of_a_container_that_can_do_nothing_else() -> None:
    host = host_with()
    up(host)
    (asked,) = questions(host)
    assert (asked.user, asked.network, asked.read_only, asked.cap_drop, asked.cap_add) == (
        ME,
        "none",
        True,
        ("ALL",),
        (),
    )
    assert (asked.files, asked.mounts, asked.security_opt) == ((), (), ("no-new-privileges",))


def test_also_where_nodes_have_a_network_and_addresses_of_their_own() -> None:
    """Without an address: the daemon refuses one where there is no network that could have it."""
    host = host_with()
    up(host, network="lab", node_ip="10.0.0.1")
    (asked,) = questions(host)
    assert (asked.network, asked.ip) == ("none", None)
    assert users(host) == {ME}


def test_an_image_that_only_root_can_read_runs_as_root_and_it_is_said() -> None:
    host = host_with(readable=False)
    outcome, reporter = up(host)
    assert (users(host), outcome.config.user) == ({None}, None)
    (warning,) = [line for line in reporter.lines if line.startswith("warning")]
    assert warning == (
        f"warning: containers of image:1 run as root: user {ME} can't read Ray and vLLM there (--user names another)"
    )


@pytest.mark.parametrize("own", ["2000", "2000:2000", "vllm", "ray:users"])
def test_a_user_of_the_images_own_is_left_as_it_is(own: str) -> None:
    host = host_with(own)
    outcome, _ = up(host)
    assert (users(host), outcome.config.user, questions(host)) == ({None}, None, [])


def test_a_user_that_is_stated_is_taken_at_its_word() -> None:
    host = host_with(readable=False)
    outcome, reporter = up(host, user="5:6")
    assert (users(host), outcome.config.user, questions(host)) == ({"5:6"}, "5:6", [])
    assert "warning" not in reporter.text()


def test_processes_have_the_user_who_starts_them() -> None:
    host = host_with()
    up(host, runtime="native")
    assert (users(host), questions(host)) == ({None}, [])


def test_root_and_who_is_on_another_machine_leave_the_image_its_user() -> None:
    host = host_with()
    up(host, UpOptions(caller=None))
    assert (users(host), questions(host)) == ({None}, [])


def test_root_of_a_rootless_daemon_is_its_user_already() -> None:
    host = host_with()
    host.rootless = True
    up(host, network="own", node_ip="10.0.0.1")
    assert (users(host), questions(host)) == ({None}, [])


def test_the_command_for_the_other_hosts_has_no_user_but_one_that_was_stated() -> None:
    assert "--user" not in up(host_with())[0].worker_command
    assert "--user 5:6" in up(host_with(), user="5:6")[0].worker_command


def test_the_same_user_again_changes_nothing_and_another_is_refused() -> None:
    host = host_with()
    up(host)
    before = dict(host.records)
    up(host)
    assert host.records == before
    with pytest.raises(ClusterStateError) as caught:
        up(host, UpOptions(caller=None))
    assert caught.value.details == f"user: {ME} → null"
    assert host.records == before
