"""A daemon, or the tunnel to it, that is lost in the middle of an answer; what came of it is decided here, by bytes."""

from __future__ import annotations

import io
import struct
import tarfile
from collections.abc import Callable, Iterator

import pytest

from tests.unit.hosts.daemon import (
    CREATED,
    HALF_A_MESSAGE,
    JSON,
    LAST,
    LOOKED_AT,
    RAW,
    UPGRADED,
    WHOLE_MESSAGE,
    Daemon,
    chunk,
    in_a_chunk,
    whole,
)
from vllmray.errors import BrokenConnectionError, HostError
from vllmray.hosts.base import BuildSpec, ContainerSpec, File
from vllmray.hosts.docker.host import DockerHost

Use = Callable[[DockerHost], object]


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    made = Daemon()
    yield made
    made.close()


def connected(daemon: Daemon, **answers: bytes) -> DockerHost:
    usual = {"/version": whole({"ApiVersion": "1.45"}), "/info": whole({"LoggingDriver": "local"})}
    daemon.answers = {part.replace("_", "/"): said for part, said in answers.items()} | usual
    return DockerHost(daemon.address, insecure_tcp=True)


@pytest.mark.parametrize("said", [
    b"",
    JSON + in_a_chunk(WHOLE_MESSAGE),
    JSON + chunk(WHOLE_MESSAGE),
    JSON + chunk(HALF_A_MESSAGE) + LAST,
    JSON + chunk(WHOLE_MESSAGE) + b"no length\r\n",
])  # fmt: skip
@pytest.mark.parametrize(("path", "use"), [
    ("images_create", lambda host: list(host.pull("image:1"))),
    ("images_load", lambda host: host.load(iter([b"some", b"bytes"]))),
    ("build", lambda host: list(host.build(BuildSpec("FROM scratch"), "image:1"))),
    ("events", lambda host: host.events({"l": "1"}, since=None)),
])  # fmt: skip
def test_an_answer_in_messages_that_breaks_off_is_a_broken_connection(
    daemon: Daemon, said: bytes, path: str, use: Use
) -> None:
    host = connected(daemon, **{path: said, "_ping": whole("OK")})
    with pytest.raises(BrokenConnectionError) as caught:
        use(host)
    assert caught.value.message.startswith(f"{daemon.address}: could not ")
    assert caught.value.hint
    host.close()


def frame(content: bytes) -> bytes:
    return struct.pack(">BxxxL", 1, len(content)) + content


@pytest.mark.parametrize("said", [b"", RAW + chunk(frame(b"a line\n")), RAW + in_a_chunk(frame(b"a line\n")),
                                  RAW + chunk(frame(b"a line\n") + b"\1\0") + LAST])  # fmt: skip
def test_a_log_that_breaks_off_is_a_broken_connection(daemon: Daemon, said: bytes) -> None:
    host = connected(daemon, logs=said, containers_c_json=LOOKED_AT)
    with pytest.raises(BrokenConnectionError, match="could not read the log of c"):
        list(host.logs("c", follow=True))
    host.close()


@pytest.mark.parametrize("said", [b"", RAW + chunk(b"some"), RAW + in_a_chunk(b"some")])
def test_an_image_that_breaks_off_is_a_broken_connection(daemon: Daemon, said: bytes) -> None:
    host = connected(daemon, images_get=said)
    with pytest.raises(BrokenConnectionError, match="could not read image:1"):
        list(host.save(["image:1"]))
    host.close()


def test_what_an_ended_program_left_is_asked_of_a_daemon_that_is_gone_and_that_is_said(daemon: Daemon) -> None:
    host = connected(daemon, containers_c_exec=whole({"Id": "e"}, "201 Created"), exec_e_start=UPGRADED)
    running = host.exec("c", ("true",))
    with pytest.raises(EOFError):
        running.read_line(5)
    with pytest.raises(BrokenConnectionError, match="could not read the exit code of true in c"):
        running.exit_code()
    host.close()


def a_tar(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize("archive", [
    b"", RAW + in_a_chunk(b"half a tar"), RAW + chunk(b"half a tar") + LAST,
])  # fmt: skip
def test_files_that_can_not_be_put_take_the_container_with_them_or_it_is_named(daemon: Daemon, archive: bytes) -> None:
    """The daemon is gone for the clean-up as well."""
    stat = b"X-Docker-Container-Path-Stat: e30=\r\n\r\n"
    host = connected(
        daemon,
        containers_create=CREATED,
        archive=archive.replace(b"\r\n\r\n", b"\r\n" + stat, 1),
        **{f"containers_{'c' * 64}_json": LOOKED_AT},
    )
    spec = ContainerSpec(name="node", image="image:1", argv=("true",), files=(File("/a", b"a"),))
    with pytest.raises(HostError, match="could not put files into node") as caught:
        host.create_and_start(spec)
    assert isinstance(caught.value, BrokenConnectionError)
    assert f"Not removed: node on {daemon.address} (" in str(caught.value.hint)
    host.close()


def test_a_container_that_is_gone_already_is_no_failed_clean_up(daemon: Daemon) -> None:
    gone = whole({"message": "No such container"}, "404 Not Found")
    host = connected(daemon, containers_create=CREATED, **{"c" * 64: gone})
    with pytest.raises(HostError, match="could not start container node") as caught:
        host.create_and_start(ContainerSpec(name="node", image="image:1", argv=("true",)))
    assert "Not removed" not in str(caught.value.hint)
    host.close()
