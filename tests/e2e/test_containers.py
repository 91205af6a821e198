"""What is inside the containers, looked at from inside and with `docker inspect`."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.conftest import Users, wait_for
from tests.rig.settings import ENGINE_FLAGS

TOKEN = "hf_not_a_real_token_but_a_secret"


def test_the_token_reaches_hugging_faces_library_and_shows_nowhere_else(users: Users) -> None:
    first = users(1)
    first.write_settings(HF_TOKEN=TOKEN)
    up = first.vllmray("up", "--role", "head", "--no-wait", *ENGINE_FLAGS)
    assert up.returncode == 0
    docker = first.host.docker
    read = "from huggingface_hub import get_token; print(get_token())"
    for name in ("vllmray-head", "vllmray-engine"):
        assert docker("exec", name, "python3", "-c", read).strip() == TOKEN
        assert docker("exec", name, "stat", "-c", "%a %u", "/vllmray/secrets/hf_token").strip() == "600 0"
    everything = docker("inspect", *first.containers()) + up.stdout + up.stderr
    everything += first.vllmray("status", "--json").stdout + first.vllmray("logs", "head").stdout
    everything += "\n".join(first.host.processes())
    assert "HF_TOKEN_PATH" in everything
    assert TOKEN not in everything
    # A new token is no change of the cluster.
    first.write_settings(HF_TOKEN="another")
    assert first.vllmray("up", "--role", "head", "--no-wait", *ENGINE_FLAGS).returncode == 0


def test_a_login_to_s3_is_a_file_in_each_container_and_shows_nowhere_else(users: Users) -> None:
    first = users(1)
    login = {"AWS_ACCESS_KEY_ID": "AKIANOTAREALKEY", "AWS_SECRET_ACCESS_KEY": "not/a+real+secret"}
    first.write_settings(MODEL_NAME="s3://bucket/model", **login)
    up = first.vllmray("up", "--role", "head", "--no-wait", "--no-model-check", *ENGINE_FLAGS)
    assert up.returncode == 0
    docker = first.host.docker
    read = (
        "import configparser, os; c = configparser.RawConfigParser(); c.read(os.environ['AWS_SHARED_CREDENTIALS_FILE'])"
    )
    for name in ("vllmray-head", "vllmray-engine"):
        found = docker("exec", name, "python3", "-c", f"{read}; print(*c['default'].values())").split()
        assert found == [*login.values()]
        assert docker("exec", name, "stat", "-c", "%a", "/vllmray/secrets/aws_credentials").strip() == "600"
    everything = docker("inspect", *first.containers()) + up.stdout + up.stderr + "\n".join(first.host.processes())
    assert not [word for word in login.values() if word in everything]
    assert "--model s3://bucket/model" in up.stdout + up.stderr  # so that a worker knows where its login is of use


def test_while_a_daemon_is_away_its_cluster_is_remembered_and_no_other_is_started_in_its_place(users: Users) -> None:
    first = users(1)
    first.write_settings()
    assert first.vllmray("up", "--role", "head", "--no-wait", *ENGINE_FLAGS).returncode == 0
    kept = Path(first.host.environment["XDG_STATE_HOME"]) / "vllmray/secrets/vllmray"
    assert [path.read_text() for path in kept.glob("runtime.*")] == ["docker\n"]
    first.host.stop_daemon()
    try:
        for argv in (("status",), ("down",), ("down", "--all"), ("up", "--role", "head")):
            done = first.vllmray(*argv)
            assert done.returncode == 3
            assert f"error: cannot reach Docker at {first.host.docker_host}: " in done.stderr
            assert "nothing to remove" not in done.stdout
    finally:
        first.host.start_daemon()
    assert [*kept.glob("runtime.*")]
    assert first.vllmray("down").returncode == 0
    assert [*kept.glob("runtime.*")] == []


def test_an_image_that_runs_as_another_user_works_and_reads_its_own_files(users: Users) -> None:
    first = users(1)
    docker = first.host.docker
    image = "vllmray-test-user:1"
    docker(
        "run", "--name", "user", first.settings["VLLMRAY_IMAGE"], "useradd", "--create-home", "--uid", "2000", "vllm"
    )
    docker("commit", "--change", "USER vllm", "user", image)
    docker("rm", "user")
    try:
        first.write_settings(HF_TOKEN=TOKEN, VLLMRAY_IMAGE=image)
        assert first.vllmray("up", "--role", "head", "--no-wait", *ENGINE_FLAGS).returncode == 0
        wait_for(lambda: len(first.status()["nodes"]) == 1, "the head in Ray")
        assert docker("exec", "vllmray-head", "id", "-un").strip() == "vllm"
        assert docker("exec", "vllmray-head", "cat", "/vllmray/secrets/hf_token").strip() == TOKEN
        wait_for(lambda: (first.status()["engine"] or {}).get("phase") == "waiting", "the engine at its gate", 120)
    finally:
        first.vllmray("down")
        docker("rmi", "--force", image)
