"""A daemon that can't be reached: one message, whatever was about to be done."""

from __future__ import annotations

import pytest

from tests.unit.hosts.daemon import Daemon, whole
from vllmray.errors import HostError
from vllmray.hosts.docker.errors import unreachable
from vllmray.hosts.docker.host import DockerHost

NO_SOCKET = "Error while fetching server API version: ('Connection aborted.', "
SSH = "ssh: connect to host 10.0.0.9 port 22: Connection refused"


@pytest.mark.parametrize(
    ("text", "reason", "hint"),
    [
        ("[Errno 2] No such file or directory", "no such file or directory", "docker info"),
        (f"{NO_SOCKET}FileNotFoundError(2, 'No such file'))", "no such file or directory", "docker info"),
        ("[Errno 111] Connection refused", "connection refused", "docker info"),
        (f"{NO_SOCKET}PermissionError(13, 'Permission denied'))", "permission denied", "group docker"),
        ("HTTPConnectionPool(host='h', port=2): Read timed out. (read timeout=10)", "timed out", "docker info"),
        ("timed out", "timed out", "docker info"),
        (f"{NO_SOCKET}RemoteDisconnected('Remote end closed'))", "connection closed without an answer", "docker info"),
        (SSH, SSH, "that `ssh` to that host works"),
        (f"Connection aborted\n{SSH}", SSH, "that `ssh` to that host works"),
        ("me@gpu2: Permission denied (publickey).", "me@gpu2: Permission denied (publickey)", "without a password"),
        ("ssh exited without output", "ssh exited without output", "docker info"),  # the address decides
    ],
)
def test_a_daemon_that_can_not_be_reached_is_said_in_one_line(text: str, reason: str, hint: str) -> None:
    error = unreachable("unix:///d.sock", text)
    assert error.message == f"cannot reach Docker at unix:///d.sock: {reason}"
    assert error.details == text
    assert hint in (error.hint or "")
    later = unreachable("unix:///d.sock", text, what="list containers")
    assert later.message == f"{error.message}; could not list containers"


def test_a_socket_that_goes_away_later_is_a_daemon_that_can_not_be_reached() -> None:
    daemon = Daemon()
    daemon.answers = {"/version": whole({"ApiVersion": "1.45"})}
    host = DockerHost(daemon.address, insecure_tcp=True)
    host._api.base_url = "http://127.0.0.1:1"
    unreached = "^cannot reach Docker at tcp://127.0.0.1:[0-9]+: connection refused"
    for verb in (host.ping, host.info):
        with pytest.raises(HostError, match=f"{unreached}$"):
            verb()
    with pytest.raises(HostError, match=f"{unreached}; could not list containers$"):
        host.containers({})
    host.close()
    daemon.close()


def test_a_daemon_that_answers_with_an_error_is_one_that_was_reached() -> None:
    daemon = Daemon()
    daemon.answers = {
        "/version": whole({"ApiVersion": "1.45"}),
        "/info": whole({"message": "it is ill"}, "500 Internal Server Error"),
    }
    host = DockerHost(daemon.address, insecure_tcp=True)
    with pytest.raises(HostError, match=r"^tcp://127.0.0.1:\d+: could not read the daemon's info$") as caught:
        host.info()
    assert caught.value.details == "it is ill"
    host.close()
    daemon.close()
