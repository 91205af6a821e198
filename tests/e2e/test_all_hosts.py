"""One file, one command, four hosts: from the operator's desk, by ssh."""

from __future__ import annotations

import json
import random
import signal
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import finish, wait_for
from tests.e2e.desk import Desk
from tests.e2e.test_cluster import ask
from tests.rig import cable
from tests.rig.hosts import Rig
from tests.rig.settings import ENGINE_FLAGS
from vllmray.cluster.up_all import PHASES
from vllmray.demo.run import EXPECTED, QUESTION
from vllmray.ray.ports import RayPorts

HOSTS = ("gpu1", "gpu2", "gpu3", "gpu4")
FLAGS = ENGINE_FLAGS[1:]


@pytest.fixture
def desk(clean: Rig, tmp_path: Path) -> Iterator[Desk]:
    """With settings, and no cluster file yet."""
    made = Desk(clean, tmp_path)
    made.write_settings()
    yield made
    for process in made.running:
        if process.poll() is None:
            process.kill()
        process.communicate()


def with_file(desk: Desk, *hosts: str, stages: int, **more: str) -> None:
    """A cluster file by hand."""
    lines = ["version = 1", "[cluster]", "tensor_parallel_size = 1", f"pipeline_parallel_size = {stages}"]
    lines += [f"vllm_args = {json.dumps(FLAGS)}", *(f"{name} = {value}" for name, value in more.items())]
    lines += [line for host in hosts for line in ("[[hosts]]", f'address = "{host}"')]
    desk.file.write_text("\n".join(lines) + "\n")


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    """Containers that are new, gone or started again."""
    return {name for name in before | after if before.get(name) != after.get(name)}


@pytest.mark.timeout(900)
def test_init_up_chat_and_down_over_four_hosts(desk: Desk) -> None:
    made = desk.vllmray("init", "--hosts", ",".join(HOSTS))
    assert made.returncode == 0
    file = tomllib.loads(desk.file.read_text())
    assert [(host["address"], host["role"], host["node_ip"]) for host in file["hosts"]] == [
        (f"gpu{number}", "head" if number == 1 else "worker", f"10.78.0.{number}") for number in range(1, 5)
    ]
    assert (file["cluster"]["pipeline_parallel_size"], file["cluster"]["accelerator"]) == (4, "cpu")
    assert "10.78.0.2 on eth0" in desk.file.read_text()
    assert desk.vllmray("init", "--hosts", "gpu1").returncode == 2  # the file is there

    up = desk.vllmray("up", "--", *FLAGS)
    assert up.returncode == 0
    silent = ("model", "prune")  # the model is a folder of every host, and nobody was taken out
    for phase in (phase for phase in PHASES if phase.title not in silent):
        assert f": {phase.title} done" in up.stderr
    assert "endpoint http://10.78.0.1:8000/v1" in up.stdout
    assert EXPECTED in ask("10.78.0.1")
    chat = desk.vllmray("chat", "--max-tokens", "20", QUESTION)
    assert EXPECTED in chat.stdout

    seen = desk.status()
    assert (seen["ready"], seen["gpus"]) == (True, {"wanted": 4, "total": 4.0, "used": 4.0})
    assert [(host["name"], host["ready"]) for host in seen["hosts"]] == [(host, True) for host in HOSTS]
    history = desk.vllmray("events").stdout
    assert "gpu1 vllmray-engine  joined: 10.78.0.4" in history
    assert "gpu4 vllmray-worker" in history
    lines = desk.vllmray("logs", "--tail", "3").stdout.splitlines()
    assert {tuple(line.split("|")[0].split()) for line in lines} == {
        *(("gpu1", role) for role in ("head", "engine")),
        *((host, "worker") for host in HOSTS[1:]),
    }

    # The same again changes nothing; a changed setting restarts what it touches.
    before = desk.containers()
    assert desk.vllmray("up", "--", *FLAGS).returncode == 0
    assert desk.containers() == before
    up = desk.vllmray("up", "--no-wait", "--max-model-len", "512", "--", *FLAGS)
    assert up.returncode == 0
    assert "max_model_len: 1024 → 512" in up.stderr
    assert changed(before, desk.containers()) == {"gpu1 vllmray-engine"}

    down = desk.vllmray("down")
    assert down.returncode == 0
    assert down.stdout.count("vllmray-worker") == 3
    assert desk.left() == []
    assert desk.vllmray("status").returncode == 4


def test_two_desks_work_on_one_cluster_and_a_host_joins_and_goes(desk: Desk, tmp_path: Path) -> None:
    """One cluster: interrupted, taken over by another desk, one host more, one host less, gone."""
    desk.write_settings(VLLMRAY_RAY_TOKEN="", VLLM_API_KEY="")
    with_file(desk, "gpu1", "gpu2", stages=2)
    process = desk.start("up")
    wait_for(lambda: "gpu2 vllmray-worker" in desk.containers(), "the worker's container", 120)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process, 40)
    assert code == 130
    assert "gpu1: " in err
    assert "vllmray-engine" in err
    assert "Traceback" not in err
    before = desk.containers()
    assert set(before) >= {"gpu1 vllmray-head", "gpu1 vllmray-engine"}

    other = Desk(desk.rig, tmp_path / "other")
    other.folder.mkdir()
    for name in (".env", "vllmray.toml"):
        (other.folder / name).write_text((desk.folder / name).read_text())
    assert other.vllmray("up", "--no-wait").returncode == 0
    assert {name: other.containers()[name] for name in before} == before
    assert other.vllmray("key").stdout == desk.vllmray("key").stdout != ""
    assert other.vllmray("token").stdout == desk.vllmray("token").stdout != ""

    before = other.containers()
    with_file(other, "gpu1", "gpu2", "gpu3", stages=2)
    assert other.vllmray("up", "--no-wait").returncode == 0
    assert changed(before, other.containers()) == {"gpu3 vllmray-worker"}
    with_file(other, "gpu1", "gpu2", stages=2)
    kept = other.vllmray("up", "--no-wait")
    assert kept.returncode == 0
    assert "warning: no longer in the cluster file, and not removed: gpu3" in kept.stderr
    assert other.vllmray("up", "--no-wait", "--prune").returncode == 0
    assert other.containers() == before
    assert "no longer in the cluster file" not in other.vllmray("up", "--no-wait").stderr

    rotated = other.vllmray("token", "rotate")
    assert rotated.returncode == 0
    assert changed(before, other.containers()) == set(before)
    assert other.vllmray("down").returncode == 0
    assert desk.left() == []


def test_a_host_that_is_dead_from_the_start_is_named_and_nothing_is_started(desk: Desk) -> None:
    with_file(desk, *HOSTS, stages=4)
    began = time.monotonic()
    with cable.whole(3):
        cable.cut(3)
        failed = desk.vllmray("up", "--no-wait")
        assert time.monotonic() - began < 30
        assert failed.returncode == 3
        assert "error: cannot reach Docker at ssh://gpu3" in failed.stderr
        assert "gpu4: connect done" in failed.stderr
        seen = desk.vllmray("status")
        assert "no cluster vllmray" in seen.stderr or "cannot reach Docker at ssh://gpu3" in seen.stdout
    assert desk.left() == []


def test_an_unknown_host_key_and_a_refused_key_are_told_as_such(desk: Desk) -> None:
    known = desk.rig.ssh / "known_hosts"
    kept = known.read_text()
    with_file(desk, "gpu1", "gpu2", stages=2)
    try:
        known.write_text("".join(line for line in kept.splitlines(keepends=True) if "10.78.0.2 " not in line))
        failed = desk.vllmray("up", "--no-wait")
    finally:
        known.write_text(kept)
    assert failed.returncode == 3
    assert "Host key verification failed" in failed.stderr
    assert desk.containers() == {}


def test_a_worker_that_fails_takes_back_what_was_started_on_all_hosts(desk: Desk) -> None:
    with_file(desk, "gpu1", "gpu2", "gpu3", stages=3)
    port = RayPorts().node_manager
    holder = desk.rig.host(3).docker(
        *("run", "--detach", "--network", "host", desk.rig.image, "python3", "-c"),
        f"import socket, time; s = socket.create_server(('0.0.0.0', {port})); time.sleep(600)",
    )
    failed = desk.vllmray("up", "--no-wait")
    assert failed.returncode == 3
    assert "gpu3" in failed.stderr
    assert "gpu2: worker done" in failed.stderr
    assert f"already in use on 10.78.0.3: port {port}" in failed.stderr
    desk.rig.host(3).docker("rm", "--force", holder.strip())
    assert desk.left() == []


@pytest.mark.timeout(3600)
def test_a_command_that_is_killed_in_any_phase_is_completed_or_taken_down_by_the_next(
    desk: Desk, request: pytest.FixtureRequest
) -> None:
    """At 50 moments with --faults, else at two."""
    with_file(desk, "gpu1", "gpu2", stages=2)
    moments = random.Random(18)
    for number in range(50 if request.config.getoption("--faults") else 2):
        process = desk.start("up", "--no-wait")
        moment = moments.uniform(0.3, 9)
        time.sleep(moment)
        process.kill()
        process.communicate()
        print(f"killed after {moment:.1f} s: {sorted(desk.containers())}")
        if number % 2:
            assert desk.vllmray("down").returncode == 0
            assert desk.left() == [], number
    assert desk.vllmray("up", "--no-wait").returncode == 0
    names = set(desk.containers())
    assert names >= {"gpu1 vllmray-head", "gpu1 vllmray-engine", "gpu2 vllmray-worker"}
    assert desk.vllmray("down").returncode == 0
    assert desk.left() == []
