"""The look at a host, at this machine's own network: loopback is there on every machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from vllmray.payload.probes.host import addresses, cache, choose_address, connect, probe, source_address, taken


def test_loopback_is_among_the_addresses() -> None:
    assert addresses()["127.0.0.1"] == "lo"


def test_the_way_to_loopback_leaves_from_loopback() -> None:
    assert source_address("127.0.0.1") == "127.0.0.1"


def test_an_address_is_completed_by_its_interface_and_the_other_way_round() -> None:
    expected = {"node_ip": "127.0.0.1", "interface": "lo"}
    assert choose_address("127.0.0.1", None, None) == expected
    assert choose_address(None, "127.0.0.1", None) == expected
    assert choose_address(None, None, "lo") == expected


def test_what_this_host_does_not_have_is_said_with_what_it_has() -> None:
    assert "192.0.2.1 is not an address of this host" in choose_address(None, "192.0.2.1", None)["problem"]
    problem = choose_address(None, None, "nic9")["problem"]
    assert "no interface nic9" in problem
    assert "127.0.0.1 (lo)" in problem


def test_a_port_that_listens_is_taken_and_open_and_a_closed_one_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert taken({"gcs": port}) == {"gcs": port}
        assert connect("127.0.0.1", port, 1) == "open"
    assert taken({"gcs": port}) == {}
    assert connect("127.0.0.1", port, 0.3) == "refused"


def test_a_port_that_this_user_may_not_have_is_forbidden_and_not_taken() -> None:
    """As nobody, in a process of its own: what a process has given up it does not get back."""
    first = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if os.geteuid() != 0 or first < 2:
        pytest.skip("only root can become nobody, and where every port is anyone's there is none to refuse")
    ports = {"low": first - 1, "any": 0}
    ask = (
        "import json, os; from vllmray.payload.probes.host import forbidden, taken; "
        f"os.setuid(65534); print(json.dumps([taken({ports}), forbidden({ports})]))"
    )
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [{}, {"low": first - 1}]


def test_the_answer_holds_all_that_was_asked() -> None:
    answer = probe({"towards": "127.0.0.1", "ports": {}, "accelerator": "cpu", "connect": ["127.0.0.1", 1, 0.1]})
    assert (answer["node_ip"], answer["taken"], answer["gpus"], answer["connect"]) == ("127.0.0.1", {}, 0, "refused")


def test_the_cache_is_looked_at_as_the_user_who_will_write_there(tmp_path: Path) -> None:
    me = f"{os.getuid()}:{os.getgid()}"
    empty = probe({"cache": str(tmp_path)})["cache"]
    assert empty == {"writable": True, "user": me, "fresh": os.getuid() == 0}
    (tmp_path / "hub").touch()
    assert probe({"cache": str(tmp_path)})["cache"] == {"writable": True, "user": me, "fresh": False}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
@pytest.mark.parametrize(("mode", "fresh"), [(0o755, True), (0o700, False)])
def test_a_folder_of_another_is_said_not_to_be_writable(mode: int, fresh: bool) -> None:  # a parameter
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    folder.chmod(mode)
    os.seteuid(65534)
    try:
        answer = cache(str(folder))
    finally:
        os.seteuid(0)
        folder.rmdir()
    assert (answer["writable"], answer["fresh"]) == (False, fresh)
