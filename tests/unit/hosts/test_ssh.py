from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.hosts.daemon import JSON, LAST, Daemon, chunk, whole
from tests.unit.support import FakeClock, RecordingReporter
from vllmray.cluster.images.pull import ensure_image
from vllmray.errors import BrokenConnectionError, HostError
from vllmray.hosts.docker.host import DockerHost
from vllmray.hosts.ssh import SshAddress, Tunnel, forward
from vllmray.reporter import SilentStep
from vllmray.wait import NotReady, Ready, wait_until


@pytest.mark.parametrize(
    ("address", "ends_with"),
    [
        ("ssh://10.0.0.2", ["-L", "/tmp/x/docker.sock:/var/run/docker.sock", "--", "10.0.0.2"]),
        (
            "ssh://Me@GPU-Rack.Two",
            [
                *("-L", "/tmp/x/docker.sock:/var/run/docker.sock", "-l", "Me", "--", "GPU-Rack.Two"),
            ],
        ),
        ("ssh://Me@GPU2:22", ["-l", "Me", "-p", "22", "--", "GPU2"]),
        ("ssh://[FD00::2]:22/d.sock", ["-L", "/tmp/x/docker.sock:/d.sock", "-p", "22", "--", "FD00::2"]),
        ("ssh://me@[fe80::2%Eth0]", ["-l", "me", "--", "fe80::2%Eth0"]),
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


def test_what_the_users_own_configuration_says_of_ciphers_holds() -> None:
    argv = SshAddress.parse("ssh://me@gpu2").argv("127.0.0.1:8265:127.0.0.1:8265")
    assert [word for word in argv if "cipher" in word.lower() or word == "-c"] == []


@pytest.mark.parametrize("address", ["ssh://", "ssh://-oProxyCommand=evil", "ssh://host:port", "ssh://me:secret@host"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(HostError):
        SshAddress.parse(address)


CHATTY = """\
#!{python}
# Stands for an ssh with LogLevel=DEBUG, or whose host has much to say: more than a pipe holds.
import os, socket, sys
for number in range(20000):
    sys.stderr.write(f"debug1: line {{number}} of what nobody asked for, with words to fill it up\\n")
sys.stderr.flush()
here = sys.argv[sys.argv.index("-L") + 1]
if here.startswith("/"):
    path = here.partition(":")[0]
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path + ".n")
    listener.listen()
    os.rename(path + ".n", path)  # a socket that is there accepts connections
else:
    listener = socket.create_server(("127.0.0.1", int(here.split(":")[1])))
while True:
    connection, _ = listener.accept()
    if connection.recv(10):
        sys.exit("Connection to gpu2 closed by remote host.")
"""


@pytest.fixture
def chatty_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(CHATTY.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


@pytest.fixture
def tunnel(chatty_ssh: None) -> Iterator[Tunnel]:
    opened = Tunnel("ssh://gpu2")
    yield opened
    opened.close()


def test_an_ssh_that_says_more_than_a_pipe_holds_forwards_all_the_same_and_its_last_words_are_kept(
    tunnel: Tunnel,
) -> None:
    assert tunnel.last_words() == ""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(tunnel.url.removeprefix("unix://"))
        connection.sendall(b"go")

    def probe(_left: float) -> Ready[str] | NotReady:
        said = tunnel.last_words()
        return Ready(said) if said else NotReady("it runs")

    said = wait_until(probe, what="end", timeout=10, step=SilentStep())
    assert said.startswith("ssh: ")
    assert said.endswith("words to fill it up\nConnection to gpu2 closed by remote host.")
    assert len(said) < 2000


def test_the_socket_has_a_short_path_where_the_folder_for_temporary_files_is_deep(
    chatty_ssh: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("deep" * 30)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    opened = Tunnel("ssh://gpu2")
    try:
        path = Path(opened.url.removeprefix("unix://"))
        assert path.is_socket()
        assert path.parent.stat().st_mode & 0o777 == 0o700
    finally:
        opened.close()
    assert not path.parent.exists()
    assert list(deep.iterdir()) == []


@pytest.mark.usefixtures("chatty_ssh")
def test_a_port_that_a_chatty_ssh_forwards_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with forward("ssh://gpu2", port, 8265) as process:
        assert not process.ended()


@pytest.mark.usefixtures("chatty_ssh")
def test_a_daemon_whose_tunnel_ends_in_an_answer_is_a_broken_connection_with_the_words_of_ssh() -> None:
    reason = "cannot reach Docker at ssh://gpu2: Connection to gpu2 closed by remote host"
    with pytest.raises(BrokenConnectionError, match=f"^{reason}$") as caught:
        DockerHost("ssh://gpu2")
    assert str(caught.value.details).endswith("\nConnection to gpu2 closed by remote host.")


RELAY = """\
#!{python}
# Stands for an ssh whose connection is lost in a pull, as long as the file `cut` is there.
import os, pathlib, socket, sys, threading
def pump(source, target):
    while data := source.recv(65536):
        if b"/images/create" in data and pathlib.Path("{cut}").exists():
            print("client_loop: send disconnect: Broken pipe", file=sys.stderr, flush=True)
            os._exit(255)
        target.sendall(data)
    target.shutdown(socket.SHUT_WR)
if pathlib.Path("{cut}").exists():
    sys.exit("ssh: connect to host gpu2 port 22: No route to host")
path = sys.argv[sys.argv.index("-L") + 1].partition(":")[0]
listener = socket.socket(socket.AF_UNIX)
listener.bind(path + ".n")
listener.listen()
os.rename(path + ".n", path)
while True:
    here, _ = listener.accept()
    there = socket.create_connection(("127.0.0.1", {port}))
    threading.Thread(target=pump, args=(here, there), daemon=True).start()
    threading.Thread(target=pump, args=(there, here), daemon=True).start()
"""


class NetworkThatComesBack(FakeClock):
    """After the second pause the cable is in again."""

    def __init__(self, cut: Path) -> None:
        super().__init__()
        self.cut = cut
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        if len(self.pauses) == 2:
            self.cut.unlink()


def test_a_pull_whose_tunnel_is_lost_is_tried_again_through_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon, cut = Daemon(), tmp_path / "cut"
    pulled = JSON + chunk(b'{"status": "Pull complete", "id": "a"}\n') + LAST
    daemon.answers = {
        "/version": whole({"ApiVersion": "1.45"}),
        "/images/create": pulled,
        "/images/image:1/json": whole({"message": "no such image"}, "404 Not Found"),
    }
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(RELAY.format(python=sys.executable, cut=cut, port=daemon.address.rpartition(":")[2]))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    host, clock, reporter = DockerHost("ssh://gpu2"), NetworkThatComesBack(cut), RecordingReporter()
    cut.touch()
    ensure_image(host, "image:1", reporter, clock)
    assert clock.pauses == [1.0, 2.0]
    text = reporter.text()
    assert "ssh: client_loop: send disconnect: Broken pipe; trying again in 1 s" in text
    assert "ssh: connect to host gpu2 port 22: No route to host; trying again in 2 s" in text
    host.close()
    daemon.close()
