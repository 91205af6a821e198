"""What a person changes or starts anew while the cluster serves. After the matrix, since it leaves other settings."""

from __future__ import annotations

import pytest

from tests.faults.cluster import ENGINE_FLAGS, Cluster, eventually

ROLES = {"head": 1, "engine": 1, "worker": 2}


def ids(cluster: Cluster) -> dict[str, str]:
    """The containers by role."""
    form = "{{.Id}} {{.State.StartedAt}}"
    return {
        role: cluster.rig.host(number).docker("inspect", "--format", form, f"vllmray-{role}")
        for role, number in ROLES.items()
    }


@pytest.mark.timeout(900)
def test_another_length_replaces_the_engine_alone_and_says_so_first(cluster: Cluster) -> None:
    before = ids(cluster)
    again = ("up", "--role", "head", "--max-model-len", "512", "--recreate", *ENGINE_FLAGS)
    done = cluster.vllmray(1, *again)
    assert done.returncode == 0, done.stderr
    why, started = (done.stderr.index(text) for text in ("max_model_len: 1024 → 512", "vLLM server: "))
    assert why < started
    after = ids(cluster)
    assert {role for role in ROLES if after[role] != before[role]} == {"engine"}
    assert cluster.client().ask().what == "ok"
    # The same once more finds nothing to change.
    assert cluster.vllmray(1, *again).returncode == 0
    assert ids(cluster) == after


@pytest.mark.timeout(900)
@pytest.mark.parametrize("role", ["engine", "worker", "head"])
def test_each_program_starts_anew_when_asked_to(cluster: Cluster, role: str, request: pytest.FixtureRequest) -> None:
    if role != "worker" and not request.config.getoption("--faults"):
        pytest.skip("with --faults: each takes a start of the engine")
    before = ids(cluster)
    done = cluster.vllmray(ROLES[role], "restart", role)
    assert done.returncode == 0, done.stderr
    after = ids(cluster)
    # A worker whose head is gone ends by itself, and Docker starts it again.
    assert {each for each in ROLES if after[each] != before[each]} == (set(ROLES) if role == "head" else {role})
    # The engine of a worker that went away is served no more, which `status` knows a moment later.
    assert eventually(lambda: cluster.client().ask().what == "ok", 400)
    assert eventually(cluster.serves, 10)
