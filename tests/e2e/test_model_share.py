"""A model of the hub on four hosts: downloaded once, then from host to host, over a cable that is cut too."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import finish, wait_for
from tests.e2e.desk import Desk
from tests.rig import cable
from tests.rig.hosts import DESK_ADDRESS, Rig
from tests.rig.hub import FakeHub, Model, serving

MODEL = "org/smol"
HOSTS = ("gpu1", "gpu2", "gpu3", "gpu4")


@pytest.fixture
def hub(rig: Rig) -> Iterator[FakeHub]:
    """A hub that all hosts reach, with the rig's model."""
    with serving(DESK_ADDRESS) as made:
        files = {path.name: path.read_bytes() for path in rig.model.iterdir() if path.name != "SHA256SUMS"}
        made.models[MODEL] = Model(files)
        yield made


@pytest.fixture
def desk(clean: Rig, hub: FakeHub, tmp_path: Path) -> Iterator[Desk]:
    made = Desk(clean, tmp_path)
    made.write_settings(MODEL_NAME=MODEL, HF_ENDPOINT=hub.url, VLLMRAY_ENV="VLLM_CPU_KVCACHE_SPACE=1")
    lines = ["[cluster]", "tensor_parallel_size = 1", "pipeline_parallel_size = 4"]
    for host in HOSTS:
        lines += ["[[hosts]]", f'address = "{host}"', f'model_cache = "{cache(made, host)}"']
    made.file.write_text("\n".join(lines) + "\n")
    yield made
    for process in made.running:
        if process.poll() is None:
            process.kill()
        process.communicate()


def cache(desk: Desk, host: str) -> Path:
    return desk.folder / f"cache-{host}"


def files(desk: Desk, host: str) -> dict[str, bytes]:
    """What a node of that host reads, by name."""
    snapshots = list(cache(desk, host).glob("hub/models--org--smol/snapshots/*"))
    return {path.name: path.read_bytes() for path in snapshots[0].iterdir()} if snapshots else {}


def downloads(hub: FakeHub) -> int:
    """How often the weights were asked for."""
    return len([seen for seen in hub.seen if seen.method == "GET" and seen.path.endswith("model.safetensors")])


def test_a_model_is_downloaded_once_and_every_host_has_it(desk: Desk, hub: FakeHub) -> None:
    pulled = desk.vllmray("model", "pull", "--json")
    assert pulled.returncode == 0
    rows = json.loads(pulled.stdout)["data"]["hosts"]
    assert [(row["host"], row["whole"]) for row in rows] == [(host, True) for host in HOSTS]
    assert downloads(hub) == 1
    for host in HOSTS:
        assert files(desk, host) == hub.models[MODEL].files

    # Again: nothing is sent. A host that lost it gets it from another, and the hub is asked for nothing.
    again = desk.vllmray("model", "pull")
    assert "receiving" not in again.stderr
    shutil.rmtree(cache(desk, "gpu3") / "hub")
    assert desk.vllmray("model", "pull").returncode == 0
    assert files(desk, "gpu3") == hub.models[MODEL].files
    assert downloads(hub) == 1

    # A changed byte is found; the nodes would read it.
    blob = max((cache(desk, "gpu2") / "hub/models--org--smol/blobs").iterdir(), key=lambda path: path.stat().st_size)
    with blob.open("r+b") as file:
        file.seek(5000)
        file.write(b"\xff\xff")
    verified = desk.vllmray("model", "verify")
    assert verified.returncode == 1
    assert f"blobs/{blob.name}: its contents have changed" in verified.stdout
    assert desk.vllmray("model", "rm", MODEL).returncode == 0
    assert [files(desk, host) for host in HOSTS] == [{}, {}, {}, {}]
    assert desk.left() == []


def test_a_cable_that_is_cut_while_a_model_is_copied_costs_only_what_was_not_there(desk: Desk, hub: FakeHub) -> None:
    with cable.whole(3), cable.slow(3, delay_ms=20):
        process = desk.start("model", "pull")
        part = cache(desk, "gpu3")

        def some() -> bool:
            return any(path.stat().st_size > 2**20 for path in part.rglob("*.incomplete"))

        wait_for(some, "the first part of the model", 90)
        cable.cut(3)
        time.sleep(3)
        had = max((path.stat().st_size for path in part.rglob("*.incomplete")), default=0)
        cable.mend(3)
        code, _, err = finish(process, 200)
    assert code == 0, err
    assert had > 2**20
    for host in HOSTS:
        assert files(desk, host) == hub.models[MODEL].files
    assert downloads(hub) == 1


def test_a_model_that_is_gated_or_missing_is_said_before_anything_starts(desk: Desk, hub: FakeHub) -> None:
    hub.models[MODEL].gated = True
    refused = desk.vllmray("up", "--no-wait")
    assert refused.returncode == 2
    assert "gated" in refused.stderr.lower()
    missing = desk.vllmray("up", "--no-wait", "--model", "org/none")
    assert missing.returncode == 2
    assert re.search(r"org/none", missing.stderr)
    assert desk.left() == []


def test_hosts_that_share_a_folder_send_each_other_nothing(desk: Desk, hub: FakeHub) -> None:
    shared = desk.folder / "nfs"
    shared.mkdir()
    for host in HOSTS[:3]:
        cache(desk, host).symlink_to(shared)
    pulled = desk.vllmray("model", "pull")
    assert pulled.returncode == 0
    assert [line for line in pulled.stderr.splitlines() if "receiving" in line and "gpu4" not in line] == []
    assert downloads(hub) == 1
    assert files(desk, "gpu4") == hub.models[MODEL].files
    assert not list(shared.glob(".vllmray-mark-*"))
