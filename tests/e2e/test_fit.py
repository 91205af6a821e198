"""Settings that the model can't have, on real daemons: nothing is started, and a folder is read where it is."""

from __future__ import annotations

import time

from tests.e2e.conftest import Users
from vllmray.cluster.probe.model import Look, look_there
from vllmray.config.models import ClusterConfig
from vllmray.hosts.docker.host import DockerHost
from vllmray.output.progress import PlainReporter


def test_sizes_that_the_model_can_not_have_touch_no_container(users: Users) -> None:
    user = users(1)
    began = str(time.time())
    head = user.vllmray("up", "--role", "head", "--tensor-parallel-size", "2")
    assert head.returncode == 2
    assert "--tensor-parallel-size: tensor_parallel_size 2 does not divide 9 attention heads; use 1 or 3" in head.stderr
    events = user.host.docker("events", "--since", began, "--until", str(time.time()), "--filter", "type=container")
    assert events == ""


def test_a_folder_of_the_host_is_read_in_a_container_there(users: Users) -> None:
    user = users(1)
    host = DockerHost(user.host.docker_host)
    config = ClusterConfig(image=user.settings["VLLMRAY_IMAGE"], model=user.settings["MODEL_NAME"], accelerator="cpu")
    try:
        model = look_there(
            host, config.model_copy(update={"tensor_parallel_size": 1}), Look(elsewhere=True), PlainReporter()
        )
    finally:
        host.close()
    assert model is not None
    assert model.shape.config.num_attention_heads == 9
    assert model.checkpoint_bytes
    assert model.checkpoint_bytes > 250_000_000
    assert user.containers() == {}
