"""What every Host must do. Programs used here: echo, cat, printenv, sleep, true, false."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.conftest import Ground
from vllmray.errors import HostError
from vllmray.hosts.base import Container, ContainerSpec, File, Mount

LABELS = {"io.vllmray.cluster": "contract", "io.vllmray.role": "head"}


def spec(ground: Ground, *argv: str, name: str = "contract", **fields: Any) -> ContainerSpec:
    return ContainerSpec(name=name, image=ground.image, argv=argv, **({"labels": LABELS} | fields))


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Real hosts need a moment for what the fake does at once."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)


def only(ground: Ground) -> Container:
    (container,) = ground.host.containers(LABELS)
    return container


def ended(ground: Ground) -> Container:
    wait_for(lambda: only(ground).status == "exited")
    return only(ground)


def test_it_answers_and_says_what_it_is(ground: Ground) -> None:
    ground.host.ping()
    info = ground.host.info()
    assert info.version
    assert info.cpus > 0
    assert info.memory > 0


def test_an_image_is_found_or_is_none(ground: Ground) -> None:
    image = ground.host.image(ground.image)
    assert image is not None
    assert image.id.startswith("sha256:")
    assert ground.host.image("no-such-image:1") is None


def test_a_program_runs_to_its_end_and_leaves_its_exit_code_and_output(ground: Ground) -> None:
    started = ground.host.create_and_start(spec(ground, "echo", "one", "two"))
    assert started.name == "contract"
    container = ended(ground)
    assert (container.id, container.exit_code, container.restarts) == (started.id, 0, 0)
    assert list(ground.host.logs(container.id)) == ["one two"]
    assert container.labels["io.vllmray.role"] == "head"
    assert container.image == ground.image


def test_a_failing_program_leaves_its_exit_code(ground: Ground) -> None:
    ground.host.create_and_start(spec(ground, "false"))
    container = ended(ground)
    assert container.exit_code == 1
    assert container.crashed


def test_a_program_that_goes_on_is_running(ground: Ground) -> None:
    container = ground.host.create_and_start(spec(ground, "sleep", "600"))
    assert container.status == "running"
    assert not container.crashed


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
    assert ended(ground).exit_code == 127


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
    assert only(ground).crashed


def test_a_missing_folder_is_an_error_unless_it_may_be_made(ground: Ground) -> None:
    mount = Mount("bind", ground.missing_folder, "/data")
    with pytest.raises(HostError):
        ground.host.create_and_start(spec(ground, "true", mounts=(mount,)))
    assert ground.host.containers(LABELS) == []
    ground.host.create_and_start(spec(ground, "true", mounts=(dataclasses.replace(mount, create=True),)))
    assert ended(ground).exit_code == 0


def test_a_folder_that_is_there_is_mounted(ground: Ground) -> None:
    mount = Mount("bind", ground.make_folder(), "/data", read_only=True)
    ground.host.create_and_start(spec(ground, "true", mounts=(mount,)))
    assert ended(ground).exit_code == 0


def test_volumes_are_found_and_removed_by_label(ground: Ground) -> None:
    mount = Mount("memory", "contract-ray", "/tmp/ray", labels={"io.vllmray.cluster": "contract"})
    container = ground.host.create_and_start(spec(ground, "sleep", "600", mounts=(mount,)))
    ground.host.stop_and_remove(container.id, timeout=0)
    assert ground.host.remove_volumes({"io.vllmray.cluster": "another"}) == []
    assert ground.host.remove_volumes({"io.vllmray.cluster": "contract"}) == ["contract-ray"]
    assert ground.host.remove_volumes({"io.vllmray.cluster": "contract"}) == []
