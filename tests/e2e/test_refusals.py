"""What can't work is refused before anything of it runs, or taken back when it shows only later."""

from __future__ import annotations

import subprocess

from tests.e2e.conftest import Users, nothing_left, wait_for
from tests.rig.hosts import run
from tests.rig.settings import ENGINE_FLAGS


def test_a_port_that_is_taken_is_named_before_anything_starts(users: Users) -> None:
    first = users(1)
    listen = "import socket, time; s = socket.create_server(('', 6379)); print('up', flush=True); time.sleep(600)"
    listener = subprocess.Popen(first.host.inside("python3", "-c", listen), stdout=subprocess.PIPE)
    try:
        assert listener.stdout is not None
        listener.stdout.readline()
        head = first.vllmray("up", "--role", "head", *ENGINE_FLAGS)
        assert head.returncode == 3
        assert "port 6379 (--ray-port gcs=" in head.stderr
        assert first.containers() == {}
        moved = first.vllmray("up", "--role", "head", "--no-wait", "--ray-port", "gcs=6390", *ENGINE_FLAGS)
        assert moved.returncode == 0
        assert "--ray-port gcs=6390" in moved.stdout
    finally:
        listener.kill()
        listener.communicate()


def test_an_image_that_is_nowhere_is_named(users: Users) -> None:
    first = users(1)
    head = first.vllmray("up", "--role", "head", "--image", "localhost:1/no/such-image:1")
    assert head.returncode == 3
    assert "localhost:1/no/such-image:1" in head.stderr
    assert nothing_left(first) == []


def test_an_image_without_ray_is_said_to_be_one(users: Users) -> None:
    first = users(1)
    bare = "vllmray-test-bare:1"
    first.host.docker("create", "--name", "bare", first.settings["VLLMRAY_IMAGE"])
    first.host.docker("commit", "--change", "ENV PATH=/usr/bin:/bin", "bare", bare)
    first.host.docker("rm", "bare")
    try:
        head = first.vllmray("up", "--role", "head", "--image", bare, "--no-derive")
        assert head.returncode == 3
        assert f"image {bare} has no Ray" in head.stderr
        assert "uv pip install" in head.stderr
        assert nothing_left(first) == []
    finally:
        first.host.docker("rmi", "--force", bare)


def test_every_wrong_setting_is_listed_at_once(users: Users) -> None:
    first = users(1)
    first.write_settings(TENSOR_PARALLEL_SIZE="two", VLLM_PORT="99999")
    head = first.vllmray("up", "--role", "head", "--gpus", "some", "--", "--tensor-parallel-size", "4")
    assert head.returncode == 2
    for line in (
        "TENSOR_PARALLEL_SIZE in .env: not a whole number",
        "VLLM_PORT in .env: too large",
        "--gpus: write all",
        "--tensor-parallel-size is set by vllmray itself; use vllmray's --tensor-parallel-size instead",
    ):
        assert line in head.stderr
    assert first.containers() == {}


def test_an_address_that_is_not_this_hosts_is_refused_with_those_that_are(users: Users) -> None:
    first = users(1)
    head = first.vllmray("up", "--role", "head", "--node-ip", "10.78.0.77")
    assert head.returncode == 3
    assert "10.78.0.77 is not an address of this host" in head.stderr
    assert "10.78.0.1 (eth0)" in head.stderr


def test_a_host_without_a_daemon_is_one_line(users: Users) -> None:
    first = users(1)
    second = users(2).host
    for address in (
        "unix:///nowhere/docker.sock",
        f"ssh://root@{second.address}:9",  # no ssh server there
        f"ssh://root@{second.address}/nowhere/docker.sock",  # no daemon behind it
        "ssh://root@localhost",  # a host whose key is not known
    ):
        done = first.vllmray("down", "--host", address, timeout=60)
        assert done.returncode == 3
        assert address in done.stderr
        assert "hint: " in done.stderr
        assert "Traceback" not in done.stderr


def test_without_a_host_the_current_docker_context_is_meant(users: Users) -> None:
    first, second = users(1), users(2)
    environment = {name: value for name, value in first.host.environment.items() if name != "DOCKER_HOST"}
    environment["DOCKER_CONFIG"] = str(first.folder / "docker")
    address = f"tcp://{second.host.address}:2375"
    run("docker", "context", "create", "far", "--docker", f"host={address}", env=environment)
    run("docker", "context", "use", "far", env=environment)
    refused = run(*first.host.command("status"), check=False, cwd=first.folder, env=environment)
    assert refused.returncode == 3
    assert f"{address} is a Docker daemon over TCP without TLS" in refused.stderr
    open_to_all = first.host.command("status", "--insecure-docker-tcp")
    done = run(*open_to_all, check=False, cwd=first.folder, env=environment)
    assert done.returncode == 4
    assert f"{address}: no cluster vllmray here" in done.stderr
    named = run(*first.host.command("status", "--host", first.host.docker_host), check=False, env=environment)
    assert f"{first.host.docker_host}: no cluster" in named.stderr


def test_an_engine_that_vllm_refuses_ends_up_with_vllms_own_words(users: Users) -> None:
    first = users(1)
    first.write_settings(PIPELINE_PARALLEL_SIZE="1")
    head = first.vllmray("up", "--role", "head", "--", "--no-such-flag-of-vllm")
    assert head.returncode == 6
    assert "unrecognized arguments: --no-such-flag-of-vllm" in head.stderr
    assert nothing_left(first) == []


def test_a_dry_run_starts_nothing_and_its_lines_work_as_they_stand(users: Users) -> None:
    first = users(1)
    # Secrets that vllmray made are in files that a line can name.
    del first.settings["VLLMRAY_RAY_TOKEN"], first.settings["VLLM_API_KEY"]
    first.write_settings(PIPELINE_PARALLEL_SIZE="1")
    planned = first.vllmray("up", "--role", "head", "--dry-run=commands", *ENGINE_FLAGS)
    assert planned.returncode == 0
    assert first.containers() == {}
    run("sh", "-ec", planned.stdout, env=first.host.environment)
    assert set(first.containers()) == {"vllmray-head", "vllmray-engine"}
    wait_for(lambda: [node["ip"] for node in first.status()["nodes"]] == [first.host.address], "the node in Ray")
    # What was started by hand is the same cluster: vllmray finds nothing to change.
    assert first.vllmray("up", "--role", "head", "--no-wait", *ENGINE_FLAGS).returncode == 0
    assert first.vllmray("down").returncode == 0
    assert nothing_left(first) == []
