"""Hosts that come late, never, or in the wrong order, and people who lose patience."""

from __future__ import annotations

import json
import signal
import time
from typing import Any

from tests.e2e.conftest import Users, finish, nothing_left, wait_for
from tests.rig.settings import ENGINE_FLAGS


def test_a_worker_that_is_started_first_says_what_it_waits_for_and_joins(users: Users) -> None:
    first, second = users(1), users(2)
    worker = second.start("up", "--role", "worker", "--head-ip", first.host.address)
    assert worker.stderr is not None
    began = time.monotonic()
    line = next(line for line in worker.stderr if "connection refused" in line)
    assert time.monotonic() - began < 5
    assert f"{first.host.address}:6379" in line
    head = first.vllmray("up", "--role", "head", "--no-wait", *ENGINE_FLAGS)
    assert head.returncode == 0
    assert f"vllmray up --role worker --head-ip {first.host.address}" in head.stdout
    code, out, _ = finish(worker, 120)
    assert code == 0
    assert "joined" in out
    seen = first.status()
    assert seen["ready"] is False
    assert len(seen["nodes"]) == 2
    assert first.vllmray("status").returncode == 1


def test_a_wrong_head_address_is_said_at_once_and_is_a_timeout_in_the_end(users: Users) -> None:
    second = users(2)
    worker = second.start("up", "--role", "worker", "--head-ip", "10.78.0.99", "--join-timeout", "8")
    assert worker.stderr is not None
    began = time.monotonic()
    reasons = ("no answer", "No route to host")
    line = next(line for line in worker.stderr if any(reason in line for reason in reasons))
    assert time.monotonic() - began < 5
    assert "10.78.0.99:6379: " in line
    code, _, err = finish(worker, 60)
    assert code == 5
    assert "10.78.0.99:6379" in err
    assert "firewall" in err
    assert nothing_left(second) == []


def test_a_worker_that_never_comes_ends_the_wait_at_its_bound(users: Users) -> None:
    first = users(1)
    began = time.monotonic()
    head = first.vllmray("up", "--role", "head", "--join-timeout", "25", *ENGINE_FLAGS)
    assert head.returncode == 5
    assert time.monotonic() - began < 90
    assert "1 of 2 GPUs" in head.stderr
    assert f"{first.host.address}: 1 GPU" in head.stderr
    assert nothing_left(first) == []


def test_what_was_started_stays_after_a_failure_when_asked_to(users: Users) -> None:
    first = users(1)
    head = first.vllmray("up", "--role", "head", "--join-timeout", "0", "--retain", *ENGINE_FLAGS)
    assert head.returncode == 5
    assert "Kept: vllmray-head, vllmray-engine" in head.stderr
    assert set(first.containers()) == {"vllmray-head", "vllmray-engine"}
    assert first.vllmray("down").returncode == 0
    assert nothing_left(first) == []


def test_ctrl_c_stops_waiting_and_leaves_what_runs(users: Users) -> None:
    first = users(1)
    head = first.start("up", "--role", "head", *ENGINE_FLAGS)
    wait_for(lambda: "vllmray-engine" in first.containers(), "the engine's container")
    time.sleep(1)  # into the wait itself
    head.send_signal(signal.SIGINT)
    code, _, err = finish(head, 30)
    assert code == 130
    assert "still running" in err
    assert "vllmray down" in err
    assert "Traceback" not in err
    assert set(first.containers()) == {"vllmray-head", "vllmray-engine"}
    again = first.vllmray("up", "--role", "head", "--no-wait", *ENGINE_FLAGS)
    assert again.returncode == 0
    assert first.vllmray("down").returncode == 0
    assert nothing_left(first) == []


def test_another_configuration_replaces_the_cluster_when_asked_to(users: Users) -> None:
    first = users(1)
    assert first.vllmray("up", "--role", "head", "--no-wait", *ENGINE_FLAGS).returncode == 0
    before = first.containers()
    changed = ("up", "--role", "head", "--no-wait", "--port", "8001", *ENGINE_FLAGS)
    refused = first.vllmray(*changed)
    assert refused.returncode == 4
    assert "port: 8000 → 8001" in refused.stderr
    assert first.containers() == before
    assert first.vllmray(*changed[:3], "--recreate", *changed[3:]).returncode == 0
    after = first.containers()
    assert set(after) == set(before)
    assert after["vllmray-engine"] != before["vllmray-engine"]


def test_a_half_finished_up_is_completed_or_taken_down(users: Users) -> None:
    first = users(1)
    assert first.vllmray("up", "--role", "head", "--no-wait", *ENGINE_FLAGS).returncode == 0
    first.host.docker("rm", "--force", "vllmray-engine")
    before = first.containers()
    assert first.vllmray("up", "--role", "head", "--no-wait", *ENGINE_FLAGS).returncode == 0
    after = first.containers()
    assert after["vllmray-head"] == before["vllmray-head"]
    assert "vllmray-engine" in after
    first.host.docker("rm", "--force", "vllmray-head")
    assert first.vllmray("status").returncode == 1
    assert first.vllmray("down").returncode == 0
    assert nothing_left(first) == []


def test_where_rays_api_is_missing_the_text_of_ray_status_serves(users: Users) -> None:
    first = users(1)
    assert first.vllmray("up", "--role", "head", "--no-wait", *ENGINE_FLAGS).returncode == 0
    wait_for(lambda: len(first.status()["nodes"]) == 1, "the head in Ray")
    gate = '{"tensor_parallel_size": 1, "pipeline_parallel_size": 2, "allow_tp_across_hosts": false}'
    without_api = (
        "import sys, runpy; sys.modules['ray.autoscaler.v2.sdk'] = None; "
        f"sys.argv = ['watch.py', '--once', '--local-node', '--address=10.78.0.1:6379', '--gate', '{gate}']; "
        "runpy.run_path('/vllmray/site/vllmray/payload/node/watch.py', run_name='__main__')"
    )

    def look() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(first.host.docker("exec", "vllmray-head", "python3", "-c", without_api))
        return found

    # Ray's monitor, which the text comes from, is up to 5 s behind.
    wait_for(lambda: bool(look().get("nodes")), "the head in the text")
    seen = look()
    assert seen["source"] == "text"
    assert seen["shortfall"] == "1 of 2 GPUs"
    assert [node["id"] for node in seen["nodes"]] == [seen["local_node_id"]]


def test_nothing_goes_on_watching_in_the_head_once_the_command_is_gone(users: Users) -> None:
    first = users(1)
    assert first.vllmray("up", "--role", "head", "--no-wait", *ENGINE_FLAGS).returncode == 0
    watching = first.start("status", "--watch", "--json")
    assert watching.stdout is not None
    assert json.loads(watching.stdout.readline())["data"]["ready"] is False

    def watchers() -> int:
        return len([line for line in first.host.processes() if "watch.py" in line and "--engine-state" in line])

    wait_for(lambda: watchers() == 1, "the command's own watch")
    watching.send_signal(signal.SIGINT)
    code, _, err = finish(watching, 20)
    assert code == 130
    assert "Traceback" not in err
    wait_for(lambda: watchers() == 0, "the end of the watch", 20)
