"""A native cluster whose parts are killed while it serves: it starts again by itself, and `down` leaves nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.native.conftest import NativeUser
from tests.rig.settings import ENGINE_FLAGS
from vllmray.demo.run import QUESTION

HEAD_FLAGS = ("up", "--role", "head", "--node-ip", "127.0.0.1")
WORKER_FLAGS = ("up", "--role", "worker", "--head-ip", "127.0.0.1", "--node-ip", "127.0.0.2")


@pytest.fixture
def serving(user: NativeUser) -> NativeUser:
    """Two nodes on one machine, by the two commands of the README, at 127.0.0.1 and 127.0.0.2."""
    user.write_settings(VLLMRAY_ENV="VLLM_CPU_KVCACHE_SPACE=1,HF_HUB_OFFLINE=1")
    assert user.vllmray(*HEAD_FLAGS, "--no-wait", *ENGINE_FLAGS).returncode == 0
    assert user.vllmray(*WORKER_FLAGS).returncode == 0
    assert user.vllmray(*HEAD_FLAGS, *ENGINE_FLAGS).returncode == 0
    return user


def wait_for(condition: Callable[[], bool], what: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.5)


def test_a_killed_engine_serves_again_by_itself_and_down_leaves_nothing_of_killed_nodes(serving: NativeUser) -> None:
    serving.process("vllmray-engine", "main").kill()
    wait_for(lambda: not serving.status()["ready"], "the loss noticed", 30)
    wait_for(lambda: bool(serving.status()["ready"]), "ready again", 300)
    (engine,) = [found for found in serving.status()["containers"] if found["name"] == "vllmray-engine"]
    assert engine["restarts"] >= 1
    assert serving.vllmray("chat", QUESTION).returncode == 0
    # A wrong number among the settings is nothing to `down`.
    (serving.home / ".env").write_text("VLLM_PORT=none\nVLLMRAY_MISTYPED=1\n")
    for process in [serving.process(name, "main") for name in ("vllmray-head", "vllmray-worker")]:
        process.kill()
    assert serving.vllmray("down").returncode == 0
    assert serving.left() == []


def test_down_leaves_nothing_of_nodes_whose_supervisors_were_killed_alone_or_with_them(serving: NativeUser) -> None:
    both = [(name, which) for name in ("vllmray-head", "vllmray-engine") for which in ("supervisor", "main")]
    for process in [serving.process(*part) for part in (*both, ("vllmray-worker", "supervisor"))]:
        process.kill()
    assert serving.vllmray("down").returncode == 0
    assert serving.left() == []
