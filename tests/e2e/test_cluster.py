"""The main job, as a user does it: two hosts, one model over both, an answer, and everything gone again."""

from __future__ import annotations

import json

from openai import OpenAI

from tests.e2e.conftest import User, Users, finish, nothing_left
from tests.rig.settings import API_KEY, ENGINE_FLAGS
from vllmray.demo.run import EXPECTED, QUESTION


def ask(address: str, port: int = 8000) -> str:
    """The question, through the openai client, from a machine that is no part of the cluster."""
    with OpenAI(base_url=f"http://{address}:{port}/v1", api_key=API_KEY, timeout=120) as client:
        model = client.models.list().data[0].id
        question = {"role": "user", "content": QUESTION}
        answer = client.chat.completions.create(model=model, messages=[question], max_tokens=20, temperature=0)  # type: ignore[list-item]
        return answer.choices[0].message.content or ""


def test_three_hosts_one_of_them_reached_by_ssh_become_one_endpoint_and_go_again(users: Users) -> None:
    first, second, third = users(1), users(2), users(3)
    first.write_settings(PIPELINE_PARALLEL_SIZE="3")
    head = first.start("up", "--role", "head", *ENGINE_FLAGS)
    worker = second.start("up", "--role", "worker", "--head-ip", first.host.address)
    # From host 1, over ssh, as someone does who sits at the head.
    remote = first.start("up", "--role", "worker", "--head-ip", first.host.address, "--host", third.host.ssh_host)
    code, out, err = finish(worker, 180)
    assert code == 0, err
    assert f"node {second.host.address} joined the cluster of {first.host.address}" in out
    code, _, err = finish(remote, 180)
    assert code == 0, err
    code, out, err = finish(head, 700)
    assert code == 0, err
    assert f"vllmray up --role worker --head-ip {first.host.address}" in err
    assert f"{second.host.address} joined (worker, 1 GPU)" in err
    assert f"endpoint http://{first.host.address}:8000/v1" in out
    assert "curl http" in out

    assert EXPECTED in ask(first.host.address)

    seen = first.status()
    assert seen["ready"] is True
    assert {node["ip"] for node in seen["nodes"]} == {user.host.address for user in (first, second, third)}
    assert seen["gpus"] == {"wanted": 3, "total": 3.0, "used": 3.0}
    assert seen["engine"]["phase"] == "ready"
    table = first.vllmray("status")
    assert table.returncode == 0
    assert "cluster vllmray: ready" in table.stdout
    assert second.status()["ready"] is True
    raw = first.vllmray("status", "--raw")
    assert "3.0/3.0 GPU" in raw.stdout
    assert first.vllmray("status", "--host", third.host.ssh_host).returncode == 0

    # The same again changes nothing, another configuration is refused and changes nothing either.
    before = first.containers()
    again = first.vllmray("up", "--role", "head", *ENGINE_FLAGS)
    assert again.returncode == 0
    other = first.vllmray("up", "--role", "head", "--max-model-len", "512", *ENGINE_FLAGS)
    assert other.returncode == 4
    assert "max_model_len: 1024 → 512" in other.stderr
    assert "--recreate" in other.stderr
    assert first.containers() == before
    again = second.vllmray("up", "--role", "worker", "--head-ip", first.host.address)
    assert again.returncode == 0

    assert first.vllmray("logs", "head", "--tail", "5").stdout.strip()
    assert first.vllmray("logs", "worker").returncode == 4

    gone = first.vllmray("down", "--host", third.host.ssh_host)
    assert gone.returncode == 0
    assert nothing_left(third) == []
    for user in (first, second):
        goes_and_leaves_the_models(user)


def goes_and_leaves_the_models(user: User) -> None:
    """`down`, and `down` again."""
    assert user.vllmray("down").returncode == 0
    assert nothing_left(user) == []
    assert (user.folder / "models").is_dir()  # downloaded models stay
    repeated = user.vllmray("down")
    assert repeated.returncode == 0
    assert "nothing to remove" in repeated.stdout
    gone = json.loads(user.vllmray("status", "--json").stdout)
    assert (gone["error"]["code"], "data" in gone) == (4, False)
