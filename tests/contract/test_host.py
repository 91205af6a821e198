"""What every Host must do. Programs used here: echo, cat, printenv, stat, id, sleep, true, false."""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.contract.conftest import Ground
from vllmray.errors import HeldError, HostError
from vllmray.hosts.base import BuildSpec, Container, ContainerSpec, File, Lock, Mount
from vllmray.hosts.docker.lock import STALE_S
from vllmray.images.architecture import architecture_of

LABELS = {"io.vllmray.cluster": "contract", "io.vllmray.role": "head"}


def spec(ground: Ground, *argv: str, name: str = "contract", **fields: Any) -> ContainerSpec:
    return ContainerSpec(name=name, image=ground.image, argv=argv, **({"labels": LABELS} | fields))


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Real hosts need a moment for what the fake does at once."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)


def crashed(container: Container) -> bool:
    """Ended by itself at least once since it was created, or never got to start."""
    return container.ended or container.restarts > 0 or bool(container.error)


def only(ground: Ground) -> Container:
    (container,) = ground.host.containers(LABELS)
    return container


def ended(ground: Ground) -> Container:
    wait_for(lambda: only(ground).status == "exited")
    return only(ground)


def test_it_answers_and_says_what_it_is(ground: Ground) -> None:
    ground.host.ping()
    info = ground.host.info()
    assert info.runtime
    assert info.cpus > 0
    assert info.memory > 0


def test_an_image_is_found_or_is_none(ground: Ground) -> None:
    image = ground.host.image(ground.image)
    assert image is not None
    assert image.id.startswith("sha256:")
    assert ground.host.image("no-such-image:1") is None


def test_a_hosts_architecture_and_an_images_have_the_same_name(ground: Ground) -> None:
    found = ground.host.image(ground.image)
    assert found
    own = architecture_of(platform.machine()) if ground.is_real else "amd64"
    assert ground.host.info().architecture == own
    assert found.architecture == (own if ground.is_docker else "")


def test_a_program_runs_to_its_end_and_leaves_its_exit_code_and_output(ground: Ground) -> None:
    started = ground.host.create_and_start(spec(ground, "echo", "one", "two"))
    assert started.name == "contract"
    container = ended(ground)
    assert (container.id, container.exit_code, container.restarts) == (started.id, 0, 0)
    assert list(ground.host.logs(container.id)) == ["one two"]
    assert container.labels["io.vllmray.role"] == "head"
    assert container.image == ground.image


def test_a_program_that_is_let_sees_the_processes_of_the_host(ground: Ground) -> None:
    container = ground.host.create_and_start(spec(ground, "stat", "-c", "%a %u", f"/proc/{os.getpid()}", pid="host"))
    owner = 65534 if ground.is_rootless else os.getuid()  # nobody, as its user namespace has no name for root
    assert list(ground.host.logs(container.id, follow=True)) == [f"555 {owner}"]


def test_a_container_sees_no_process_of_the_host_otherwise(ground: Ground) -> None:
    container = ground.host.create_and_start(spec(ground, "stat", "-c", "%a %u", f"/proc/{os.getpid()}"))
    list(ground.host.logs(container.id, follow=True))
    assert ended(ground).exit_code == (0 if ground.is_real and not ground.is_docker else 1)


def test_a_failing_program_leaves_its_exit_code(ground: Ground) -> None:
    ground.host.create_and_start(spec(ground, "false"))
    container = ended(ground)
    assert container.exit_code == 1
    assert crashed(container)


def test_a_program_that_goes_on_is_running(ground: Ground) -> None:
    container = ground.host.create_and_start(spec(ground, "sleep", "600"))
    assert container.status == "running"
    assert not crashed(container)


def test_following_a_log_ends_with_the_container(ground: Ground) -> None:
    container = ground.host.create_and_start(spec(ground, "echo", "last words"))
    assert list(ground.host.logs(container.id, follow=True)) == ["last words"]


def test_the_tail_of_a_log_is_its_end(ground: Ground) -> None:
    container = ground.host.create_and_start(
        spec(ground, "echo", "a\nb\nc")
        if ground.is_real
        else spec(ground, "cat", "/f", files=(File("/f", b"a\nb\nc\n"),))
    )
    wait_for(lambda: only(ground).status == "exited")
    assert list(ground.host.logs(container.id, tail=2)) == ["b", "c"]


def test_environment_reaches_the_program(ground: Ground) -> None:
    container = ground.host.create_and_start(spec(ground, "printenv", "SOME", env={"SOME": "a value"}))
    assert list(ground.host.logs(container.id, follow=True)) == ["a value"]


def test_files_are_there_before_the_program_starts(ground: Ground) -> None:
    file = File("/vllmray/deep/file.txt", b"content\n", mode=0o600, secret=True)
    container = ground.host.create_and_start(spec(ground, "cat", file.path, files=(file,)))
    assert list(ground.host.logs(container.id, follow=True)) == ["content"]


def test_a_missing_image_is_an_error_and_leaves_nothing(ground: Ground) -> None:
    with pytest.raises(HostError):
        ground.host.create_and_start(dataclasses.replace(spec(ground, "true"), image="no-such-image:1"))
    assert ground.host.containers(LABELS) == []


def test_a_missing_program_is_an_error_and_leaves_nothing(ground: Ground) -> None:
    with pytest.raises(HostError):
        ground.host.create_and_start(spec(ground, "no-such-program", init=False))
    assert ground.host.containers(LABELS) == []


def test_a_missing_program_below_an_init_ends_the_container_with_127(ground: Ground) -> None:
    ground.host.create_and_start(spec(ground, "no-such-program", init=True))
    assert ended(ground).exit_code == (1 if ground.is_podman else 127)  # tini's and catatonit's


def test_a_taken_name_is_an_error_and_leaves_the_owner(ground: Ground) -> None:
    owner = ground.host.create_and_start(spec(ground, "sleep", "600"))
    with pytest.raises(HostError):
        ground.host.create_and_start(spec(ground, "true"))
    assert only(ground).id == owner.id


def test_containers_are_found_by_all_of_the_labels(ground: Ground) -> None:
    ground.host.create_and_start(spec(ground, "true", name="one"))
    ground.host.create_and_start(spec(ground, "true", name="two", labels=LABELS | {"io.vllmray.role": "worker"}))

    def names(**labels: str) -> set[str]:
        wanted = {f"io.vllmray.{key}": value for key, value in labels.items()}
        return {container.name for container in ground.host.containers(wanted)}

    assert names(cluster="contract") == {"one", "two"}
    assert names(cluster="contract", role="worker") == {"two"}
    assert names(cluster="") == {"one", "two"}
    assert names(cluster="another") == set()


def test_an_exec_gives_its_lines_its_end_and_its_exit_code(ground: Ground) -> None:
    container = ground.host.create_and_start(spec(ground, "sleep", "600"))
    running = ground.host.exec(container.id, ("echo", "hello"))
    assert running.read_line(10) == "hello"
    with pytest.raises(EOFError):
        running.read_line(10)
    wait_for(lambda: running.exit_code() == 0)
    failing = ground.host.exec(container.name, ("false",))
    with pytest.raises(EOFError):
        failing.read_line(10)
    wait_for(lambda: failing.exit_code() == 1)


def test_an_exec_without_news_gives_none_in_time(ground: Ground) -> None:
    container = ground.host.create_and_start(spec(ground, "sleep", "600"))
    running = ground.host.exec(container.id, ("sleep", "600"))
    began = time.monotonic()
    assert running.read_line(0.2) is None
    assert time.monotonic() - began < 5
    running.close()


def test_an_exec_has_the_containers_environment(ground: Ground) -> None:
    container = ground.host.create_and_start(spec(ground, "sleep", "600", env={"SOME": "value"}))
    assert ground.host.exec(container.id, ("printenv", "SOME")).read_line(10) == "value"


def test_an_exec_in_an_ended_container_is_an_error(ground: Ground) -> None:
    container = ground.host.create_and_start(spec(ground, "true"))
    wait_for(lambda: only(ground).status == "exited")
    with pytest.raises(HostError):
        ground.host.exec(container.id, ("true",))


def test_removing_is_done_once_and_asked_for_twice(ground: Ground) -> None:
    container = ground.host.create_and_start(spec(ground, "sleep", "600"))
    ground.host.stop_and_remove(container.id, timeout=0)
    assert ground.host.containers(LABELS) == []
    ground.host.stop_and_remove(container.id, timeout=0)


def test_a_program_that_fails_is_restarted_when_the_spec_says_so(ground: Ground) -> None:
    ground.host.create_and_start(spec(ground, "false", restart="unless-stopped"))
    wait_for(lambda: only(ground).restarts > 0)
    assert crashed(only(ground))


def test_a_missing_folder_is_an_error_unless_it_may_be_made(ground: Ground) -> None:
    mount = Mount("bind", ground.missing_folder, "/data")
    if not ground.is_podman:  # which makes it in either case
        with pytest.raises(HostError):
            ground.host.create_and_start(spec(ground, "true", mounts=(mount,)))
    assert ground.host.containers(LABELS) == []
    ground.host.create_and_start(spec(ground, "true", mounts=(dataclasses.replace(mount, create=True),)))
    assert ended(ground).exit_code == 0


def test_a_folder_that_is_there_is_mounted(ground: Ground) -> None:
    mount = Mount("bind", ground.make_folder(), "/data", read_only=True)
    ground.host.create_and_start(spec(ground, "true", mounts=(mount,)))
    assert ended(ground).exit_code == 0


def test_a_file_that_is_there_is_mounted_at_its_own_path(ground: Ground) -> None:
    if not ground.is_real:
        return
    file = Path(ground.make_folder()) / "template.jinja"
    file.write_text("what it says\n")
    mount = Mount("bind", str(file), str(file), read_only=True)
    container = ground.host.create_and_start(spec(ground, "cat", str(file), mounts=(mount,)))
    assert list(ground.host.logs(container.id, follow=True)) == ["what it says"]


def test_a_container_runs_as_the_user_that_was_asked_for_or_is_refused(ground: Ground) -> None:
    wanted = spec(ground, "id", "-u", user="1234:2345")
    if not ground.is_docker:
        with pytest.raises(HostError):
            ground.host.create_and_start(wanted)
        assert ground.host.containers(LABELS) == []
        return
    container = ground.host.create_and_start(wanted)
    assert list(ground.host.logs(container.id, follow=True)) == ["1234"]


# What a node's container is: it can write its own volume, where its home and its files are, and no folder of its image.
CLOSED: dict[str, Any] = {
    "mounts": (Mount("own", "", "/vllmray"),),
    "home": "/vllmray/home",
    "files": (
        File("/vllmray/program.py", b"program\n"),
        File("/vllmray/secrets/token", b"secret\n", mode=0o600, secret=True),
    ),
    "read_only": True,
    "cap_drop": ("ALL",),
    "security_opt": ("no-new-privileges",),
}


def only_docker(ground: Ground) -> None:
    if not (ground.is_docker and ground.is_real):
        pytest.skip("only a container has a file system and capabilities of its own")


def said(ground: Ground, *argv: str, **fields: Any) -> list[str]:
    """What a program prints in a closed container, until it ends."""
    container = ground.host.create_and_start(spec(ground, *argv, **(CLOSED | fields)))
    lines = list(ground.host.logs(container.id, follow=True))
    ground.host.stop_and_remove(container.id, timeout=0)
    return lines


@pytest.mark.parametrize("user", [None, "1234:2345"])
def test_a_secret_below_the_containers_own_mount_is_a_file_of_its_users_alone(ground: Ground, user: str | None) -> None:
    if user and not ground.is_docker:
        pytest.skip("processes have the user who starts them")
    owner = user.partition(":")[0] if user else str(os.getuid()) if ground.is_real and not ground.is_docker else "0"
    assert said(ground, "cat", "/vllmray/secrets/token", user=user) == ["secret"]
    assert said(ground, "cat", "/vllmray/program.py", user=user) == ["program"]
    assert said(ground, "stat", "-c", "%a %u", "/vllmray/secrets/token", user=user) == [f"600 {owner}"]
    assert said(ground, "stat", "-c", "%a %u", "/vllmray/program.py", user=user) == [f"644 {owner}"]


def test_the_home_of_a_container_is_its_own_and_that_of_a_process_its_users(ground: Ground) -> None:
    assert said(ground, "printenv", "HOME") == ["/vllmray/home" if ground.is_docker else os.environ["HOME"]]


def test_what_is_written_below_an_own_mount_is_there_and_goes_with_its_owner(ground: Ground) -> None:
    if not ground.is_real:
        pytest.skip("the fake has no files but those that it is given")
    before = ground.volumes() if ground.is_docker else set(Path.cwd().iterdir())
    write = "echo something > /vllmray/made && cat /vllmray/made"
    mounts = (Mount("own", "", "/vllmray"),)
    container = ground.host.create_and_start(spec(ground, "sh", "-c", f"{write} && sleep 600", mounts=mounts))
    wait_for(lambda: list(ground.host.logs(container.id)) == ["something"])
    running = ground.host.exec(container.id, ("cat", "/vllmray/made"))
    assert running.read_line(10) == "something"
    running.close()
    elsewhere = ground.host.exec(container.id, ("sh", "-c", "cd / && ls -d /vllmray"))
    assert Path(str(elsewhere.read_line(10))).is_absolute()
    elsewhere.close()
    ground.host.stop_and_remove(container.id, timeout=0)
    assert (ground.volumes() if ground.is_docker else set(Path.cwd().iterdir())) == before
    # And the next of that name finds nothing of it.
    again = ground.host.create_and_start(spec(ground, "cat", "/vllmray/made", mounts=mounts))
    assert "something" not in list(ground.host.logs(again.id, follow=True))


def test_a_container_that_can_not_be_made_leaves_no_volume_with_its_secrets(ground: Ground) -> None:
    only_docker(ground)
    before = ground.volumes()
    with pytest.raises(HostError):
        ground.host.create_and_start(spec(ground, "no-such-program", init=False, **CLOSED))
    assert ground.host.containers(LABELS) == []
    assert ground.volumes() == before


@pytest.mark.parametrize("user", [None, "1234:2345"])
def test_a_closed_container_can_write_its_home_and_scratch_and_nothing_of_its_image(
    ground: Ground, user: str | None
) -> None:
    only_docker(ground)
    # Podman gives a read-only container a /var/tmp in memory.
    var = () if ground.is_podman else ("/var/tmp",)
    places = ("/vllmray/home", "/tmp", "/etc", "/usr/bin", *var, "/vllmray/secrets")
    script = "for place; do touch $place/made 2>/dev/null && echo $place; done; exit 0"
    writable = ["/vllmray/home", "/tmp"] if user else ["/vllmray/home", "/tmp", "/vllmray/secrets"]
    assert said(ground, "sh", "-c", script, "sh", *places, user=user) == writable
    # Programs that compile load what they have written there.
    script = "cp /bin/true /tmp/copied && /tmp/copied && cp /bin/true ~/copied && ~/copied && echo ran"
    assert said(ground, "sh", "-c", script, user=user) == ["ran"]


USUAL_CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP"),
    *("SETUID", "SYS_CHROOT"),
)
"""What a container of Podman has unless it says otherwise (containers.conf(5), default_capabilities)."""
IPC_LOCK = 1 << 14  # linux/capability.h


@pytest.mark.parametrize(("added", "bits"), [((), 0), (("IPC_LOCK",), IPC_LOCK)])
def test_a_closed_container_has_no_capability_but_those_that_were_added_and_gets_none(
    ground: Ground, added: tuple[str, ...], bits: int
) -> None:
    """As the kernel says it (man 5 proc, /proc/PID/status), of root in the container and of another user."""
    only_docker(ground)

    def status(user: str | None) -> dict[str, str]:
        lines = said(ground, "cat", "/proc/self/status", user=user, cap_add=added)
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    root, other = status(None), status("1234:2345")
    assert [int(root[name], 16) for name in ("CapBnd", "CapPrm", "CapEff")] == [bits, bits, bits]
    had = bits if ground.is_podman else 0  # by a user who is not root: Podman grants what was added to that one too
    assert [int(other[name], 16) for name in ("CapBnd", "CapPrm", "CapEff", "CapAmb")] == [bits, had, had, had]
    assert (root["NoNewPrivs"], other["NoNewPrivs"]) == ("1", "1")


def test_volumes_are_found_and_pruned_by_label(ground: Ground) -> None:
    mount = Mount("memory", "contract-ray", "/tmp/ray", labels={"io.vllmray.cluster": "contract"})
    container = ground.host.create_and_start(spec(ground, "sleep", "600", mounts=(mount,)))
    ground.host.stop_and_remove(container.id, timeout=0)
    assert ground.host.prune({"io.vllmray.cluster": "another"}) == []
    assert ground.host.prune({"io.vllmray.cluster": "contract"}) == ["contract-ray"]
    assert ground.host.prune({"io.vllmray.cluster": "contract"}) == []


STEPS = """ARG BASE
FROM ${BASE}
RUN echo said by the step && """
# A mount of this kind is BuildKit's alone: the classic builder refuses the file.
STEPS_OF_BUILDKIT = STEPS.replace("RUN", "RUN --mount=type=cache,target=/cached")


@pytest.mark.parametrize("steps", [STEPS, STEPS_OF_BUILDKIT], ids=["any builder", "only BuildKit"])
def test_an_image_is_built_or_fails_with_the_steps_own_words_or_building_is_refused(ground: Ground, steps: str) -> None:
    def build(text: str, tag: str) -> list[str]:
        return list(ground.host.build(BuildSpec(text, {"BASE": ground.image}), tag))

    if not ground.is_docker:
        with pytest.raises(HostError):
            build("FROM scratch", "vllmray-contract:1")
        return
    stamp = uuid4().hex  # so that no cache has the step
    said = build(f"{steps} echo {stamp}", "vllmray-contract:1")
    assert {"said by the step", stamp} <= set(said)
    assert ground.host.image("vllmray-contract:1") is not None
    with pytest.raises(HostError) as caught:
        build(f"{steps} echo {stamp} >&2 && false", "vllmray-contract:2")
    assert stamp in str(caught.value.details).splitlines()
    assert re.search("code|exit status", str(caught.value.details).splitlines()[-1])
    assert ground.host.image("vllmray-contract:2") is None


def test_a_build_copies_files_of_its_context_but_those_that_are_ignored(ground: Ground, tmp_path: Path) -> None:
    if not (ground.is_docker and ground.is_real):
        pytest.skip("only Docker reads a Dockerfile")
    (tmp_path / "wanted").write_text("wanted")
    (tmp_path / "unwanted").write_text("unwanted")
    (tmp_path / ".dockerignore").write_text("# not these\nunwanted\n")
    spec = BuildSpec(f"FROM {ground.image}\nCOPY . /copied\nRUN ls -x /copied # {uuid4().hex}\n", context=tmp_path)
    said = list(ground.host.build(spec, "vllmray-contract:3"))
    assert [line for line in said if "wanted" in line] == ["wanted"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("FRUM x", "unknown instruction|FROM (instruction|statement)"),
        ("FROM no-such-image:1", "no-such-image"),
        ("", "empty|no contents"),
    ],
)
def test_a_wrong_dockerfile_is_an_error_with_the_daemons_words(ground: Ground, text: str, words: str) -> None:
    if not (ground.is_docker and ground.is_real):
        pytest.skip("only Docker reads a Dockerfile")
    with pytest.raises(HostError) as caught:
        list(ground.host.build(BuildSpec(text), "vllmray-contract:4"))
    assert re.search(words, str(caught.value.details))
    assert ground.host.image("vllmray-contract:4") is None


def small_image(ground: Ground, name: str, folder: Path) -> bytes:
    """Make an image of one random file, and return it as its host gives it."""
    folder.mkdir(exist_ok=True)
    (folder / "file").write_bytes(os.urandom(3_000_000))
    list(ground.host.build(BuildSpec("FROM scratch\nCOPY . /\n", context=folder), name))
    return b"".join(ground.host.save([name]))


def test_an_image_goes_from_host_to_host_as_one_stream_or_that_is_refused(ground: Ground, tmp_path: Path) -> None:
    host, name = ground.host, "vllmray-contract:5"
    if not ground.is_docker:
        with pytest.raises(HostError):
            next(host.save(["image:1"]))
        with pytest.raises(HostError):
            host.load(iter([b"x"]))
        return
    stream = small_image(ground, name, tmp_path / "files")
    made = host.image(name)
    ground.remove_image(name)
    assert host.image(name) is None
    host.load(iter([stream]))
    there = host.image(name)
    assert there
    assert made
    assert there.identity == made.identity
    if not ground.is_podman:  # its size and digest are of the archive that it was loaded from
        assert there == made


def test_of_a_stream_that_breaks_off_nothing_stays(ground: Ground, tmp_path: Path) -> None:
    if not ground.is_docker:
        pytest.skip("only Docker takes images")
    host, name = ground.host, "vllmray-contract:6"
    stream = small_image(ground, name, tmp_path / "files")
    made = host.image(name)
    assert made
    ground.remove_image(name)

    class CutError(Exception):
        pass

    def cut() -> Iterator[bytes]:
        yield stream[: len(stream) // 2]
        raise CutError

    with pytest.raises(HostError):
        host.load(iter([stream[: len(stream) // 2]]))
    with pytest.raises(CutError):
        host.load(cut())
    assert (host.image(name), host.image(made.id)) == (None, None)


def test_an_image_that_is_not_there_can_not_be_given(ground: Ground) -> None:
    with pytest.raises(HostError) as caught:
        list(ground.host.save(["no-such-image:1"]))
    assert "no-such-image:1" in caught.value.message


def test_a_network_is_made_once_and_pruned_by_label_or_refused(ground: Ground) -> None:
    labels = {"io.vllmray.cluster": "contract"}
    if not ground.is_docker:
        with pytest.raises(HostError):
            ground.host.make_network("contract-net", labels)
        return
    longer = ground.host.make_network("contract-net2", labels)
    subnet = ground.host.make_network("contract-net", labels)
    assert subnet != longer  # though the one's name is part of the other's
    assert ground.host.make_network("contract-net2", labels) == longer
    assert ipaddress.ip_network(subnet).num_addresses >= 8
    assert ground.host.make_network("contract-net", labels) == subnet
    address = str(ipaddress.ip_network(subnet)[5])
    container = ground.host.create_and_start(spec(ground, "true", network="contract-net", ip=address))
    assert ended(ground).exit_code == 0
    ground.host.stop_and_remove(container.id, timeout=0)
    assert sorted(ground.host.prune(labels)) == ["contract-net", "contract-net2"]
    assert ground.host.prune(labels) == []


def lock(ground: Ground, **labels: str) -> Lock:
    return ground.host.lock("contract-lock", ground.image, labels)


def when_free(ground: Ground, seconds: float) -> Lock:
    taken: list[Lock] = []

    def is_free() -> bool:
        with suppress(HeldError):
            taken.append(lock(ground))
        return bool(taken)

    wait_for(is_free, seconds)
    return taken[0]


def test_a_lock_is_had_by_one_at_a_time_and_says_whose_it_is(ground: Ground) -> None:
    with closing(lock(ground, holder="the first")):
        for _ in range(2):
            with pytest.raises(HeldError) as caught:
                lock(ground, holder="the second")
            assert caught.value.labels["holder"] == "the first"
        with closing(ground.host.lock("contract-other", ground.image, {})):
            pass
        assert ground.host.containers({"io.vllmray.cluster": ""}) == []
    with closing(lock(ground, holder="the second")), pytest.raises(HeldError) as caught:
        lock(ground, holder="the third")
    assert caught.value.labels["holder"] == "the second"


def test_a_lock_that_is_closed_is_gone_with_all_that_it_was_made_of(ground: Ground, tmp_path: Path) -> None:
    for _ in range(3):
        lock(ground).close()
        assert ground.host.containers({}) == []
        assert not list(tmp_path.rglob("contract-lock"))


def test_a_lock_that_is_closed_twice_takes_nothing_from_who_has_it_then(ground: Ground) -> None:
    first = lock(ground)
    first.close()
    with closing(lock(ground)):
        first.close()
        with pytest.raises(HeldError):
            lock(ground)


def test_a_lock_without_an_image_is_refused_where_it_takes_one(ground: Ground) -> None:
    if not ground.is_docker:
        pytest.skip("a file is enough")
    with pytest.raises(HostError) as caught:
        ground.host.lock("contract-lock", "no-such-image:1", {})
    assert not isinstance(caught.value, HeldError)
    lock(ground).close()


def test_a_lock_that_was_broken_is_free_and_its_former_holder_takes_it_from_nobody(ground: Ground) -> None:
    ground.host.break_lock("contract-lock")
    former = lock(ground, holder="the first")
    ground.host.break_lock("contract-lock")
    with closing(lock(ground, holder="the second")):
        former.close()
        with pytest.raises(HeldError) as caught:
            lock(ground, holder="the third")
        assert caught.value.labels["holder"] == "the second"


# Takes the lock, starts a container, and stays until it is killed.
HOLDER = """
import os, sys, time
from pathlib import Path
from vllmray.hosts.base import ContainerSpec
what, where, image = sys.argv[1:]
if what == "native":
    from vllmray.hosts.native.host import NativeHost
    host = NativeHost(Path(where), os.environ)
else:
    from vllmray.hosts.docker.host import DockerHost
    host = DockerHost(where, insecure_tcp=True)
lock = host.lock("contract-lock", image, {"holder": "the first"})
labels = {"io.vllmray.cluster": "contract"}
host.create_and_start(ContainerSpec(name="contract", image=image, argv=("sleep", "600"), labels=labels))
print("held", flush=True)
time.sleep(600)
"""


def test_a_lock_is_free_once_its_holder_is_killed_though_what_that_one_started_runs(
    ground: Ground, tmp_path: Path
) -> None:
    if not ground.is_real:
        pytest.skip("nobody but the test itself can hold a lock of the fake")
    about = ("docker", ground.host.address) if ground.is_docker else ("native", str(tmp_path / "state"))
    argv = [sys.executable, "-c", HOLDER, *about, ground.image]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(HeldError) as caught:
                lock(ground)
            assert caught.value.labels["holder"] == "the first"
        finally:
            holder.kill()
    when_free(ground, 5).close()
    assert only_of_cluster(ground).status == "running"


def only_of_cluster(ground: Ground) -> Container:
    (container,) = ground.host.containers({"io.vllmray.cluster": "contract"})
    return container


def test_what_is_left_of_a_lock_whose_holder_was_killed_before_it_started_is_taken_over(ground: Ground) -> None:
    """As its maker would leave it: created, and never started; until it is old its maker may yet start it."""
    only_docker(ground)
    ground.docker("create", "--name", "contract-lock", "--label", "holder=the first", ground.image, "true")
    with pytest.raises(HeldError) as caught:
        lock(ground)
    assert caught.value.labels["holder"] == "the first"
    when_free(ground, STALE_S + 5).close()
    assert ground.host.containers({}) == []


def test_what_is_left_of_a_lock_that_has_ended_is_taken_over(ground: Ground) -> None:
    only_docker(ground)
    ground.docker("run", "--network=none", "--name", "contract-lock", "--entrypoint", "true", ground.image)
    lock(ground).close()
    assert ground.host.containers({}) == []


def test_a_lock_on_docker_is_a_closed_container_without_network_or_log(ground: Ground) -> None:
    only_docker(ground)
    with closing(lock(ground)):
        form = "{{json .HostConfig}}"
        found = json.loads(ground.docker("inspect", "--format", form, "contract-lock"))
    assert (found["NetworkMode"], found["LogConfig"]["Type"], found["ReadonlyRootfs"]) == ("none", "none", True)
    dropped = sorted(USUAL_CAPABILITIES) if ground.is_podman else ["ALL"]  # Podman lists each that it would grant
    assert (sorted(found["CapDrop"]), found["SecurityOpt"]) == (dropped, ["no-new-privileges"])
    assert (found["Binds"] or []) == []
    assert found["AutoRemove"] is True
