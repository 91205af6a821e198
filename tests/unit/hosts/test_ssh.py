from __future__ import annotations

import pytest

from vllmray.errors import HostError
from vllmray.hosts.ssh import SshAddress, with_ciphers_in_hardware


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
    parsed = SshAddress.parse(address)
    argv = parsed.argv(f"/tmp/x/docker.sock:{parsed.socket}")
    assert argv[0] == "ssh"
    assert argv[-len(ends_with) :] == ends_with
    assert "-oBatchMode=yes" in argv


def test_a_host_whose_key_is_not_known_is_not_spoken_to() -> None:
    """Whatever the user's own configuration says: of an option that is there twice ssh takes the first (ssh_config(5)),
    and what stands on its command line comes before any file.
    """
    argv = SshAddress.parse("ssh://me@gpu2").argv("127.0.0.1:8265:127.0.0.1:8265")
    settings = [word for word in argv if word.startswith("-oStrictHostKeyChecking")]
    assert settings == ["-oStrictHostKeyChecking=yes"]
    assert not [word for word in argv if "KnownHosts" in word]
    assert argv[argv.index("-L") + 1] == "127.0.0.1:8265:127.0.0.1:8265"


@pytest.mark.parametrize("address", ["ssh://", "ssh://-oProxyCommand=evil", "ssh://host:port", "ssh://me:secret@host"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(HostError):
        SshAddress.parse(address)


def test_ciphers_in_hardware_go_first_and_none_is_added() -> None:
    argv = ["ssh", "-N", "--", "host"]
    usual = "chacha20-poly1305@openssh.com,aes128-ctr,aes128-gcm@openssh.com,aes256-gcm@openssh.com"
    assert with_ciphers_in_hardware(argv, usual) == [
        "ssh",
        "-oCiphers=aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,aes128-ctr",
        *argv[1:],
    ]
    strict = "aes256-gcm@openssh.com,aes256-ctr"
    assert with_ciphers_in_hardware(argv, strict)[1] == f"-oCiphers={strict}"
    assert with_ciphers_in_hardware(argv, "chacha20-poly1305@openssh.com") == argv
    assert with_ciphers_in_hardware(argv, "") == argv
