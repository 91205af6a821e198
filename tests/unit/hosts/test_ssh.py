from __future__ import annotations

from pathlib import Path

import pytest

from vllmray.errors import HostError
from vllmray.hosts.ssh import SshAddress

LOCAL = Path("/tmp/x/docker.sock")


@pytest.mark.parametrize(
    ("address", "ends_with"),
    [
        ("ssh://10.0.0.2", ["-L", "/tmp/x/docker.sock:/var/run/docker.sock", "--", "10.0.0.2"]),
        ("ssh://me@gpu2/", ["-L", "/tmp/x/docker.sock:/var/run/docker.sock", "-l", "me", "--", "gpu2"]),
        (
            "ssh://me@gpu2:2222/run/user/1000/docker.sock",
            ["-L", "/tmp/x/docker.sock:/run/user/1000/docker.sock", "-l", "me", "-p", "2222", "--", "gpu2"],
        ),
    ],
)
def test_the_command(address: str, ends_with: list[str]) -> None:
    argv = SshAddress.parse(address).argv(LOCAL)
    assert argv[0] == "ssh"
    assert argv[-len(ends_with) :] == ends_with
    assert "-oBatchMode=yes" in argv


@pytest.mark.parametrize("address", ["ssh://", "ssh://-oProxyCommand=evil", "ssh://host:port", "ssh://me:secret@host"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(HostError):
        SshAddress.parse(address)
