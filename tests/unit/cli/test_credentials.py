"""`key`, `token` and `dashboard`, and what `up` says of secrets, as typed."""

from __future__ import annotations

import itertools
import json
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.test_cli import exit_code
from tests.unit.cli.test_plan import DUMMY, make_model
from tests.unit.cli.test_runtime import record_a_node
from vllmray.cli.credentials import store_of
from vllmray.cluster.spec.labels import CONFIG
from vllmray.secrets.certificate import self_signed
from vllmray.secrets.store import API_KEY, RAY_TOKEN, SCRAPE_TOKEN

HEAD = ("up", "--role", "head", "--node-ip", "10.0.0.1", "--no-model-check", "--dry-run=commands")
WORKER = ("up", "--role", "worker", "--head-ip", "10.0.0.1", "--node-ip", "10.0.0.2", "--dry-run=commands")
TOKEN = "a-token-that-is-long-enough"


def printed(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 0) -> str:
    """What a command prints, progress and errors too."""
    assert exit_code(*argv) == code
    captured = capsys.readouterr()
    return captured.out + captured.err


def kept(state: Path, cluster: str = "vllmray") -> dict[str, str]:
    """The secrets on disk, by the names of their files."""
    return {path.name: path.read_text().rstrip("\n") for path in (state / "secrets" / cluster).iterdir()}


def tree(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file and folder below: mode, time of the last change, contents."""
    return {
        str(path): (path.lstat().st_mode, path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in (folder, *folder.rglob("*"))
    }


def make_secrets(cluster: str = "vllmray") -> None:
    """What `up` would make."""
    for name in (RAY_TOKEN, API_KEY, SCRAPE_TOKEN):
        store_of(cluster).have(name)


@pytest.mark.parametrize("runtime", ["docker", "native"])
@pytest.mark.parametrize(
    "argv",
    [HEAD, (*HEAD, "--tls", "self-signed"), (*HEAD, "--no-api-key"), (*WORKER, "--token-file", "token")],
    ids=["head", "https", "no key", "worker"],
)
def test_a_plan_writes_nothing_at_all(
    nowhere: Path, state: Path, capsys: pytest.CaptureFixture[str], runtime: str, argv: tuple[str, ...]
) -> None:
    (nowhere / "token").write_text(TOKEN)
    (nowhere / "token").chmod(0o600)
    before = tree(nowhere) | tree(state.parent)
    text = printed(capsys, *argv, "--runtime", runtime)
    assert tree(nowhere) | tree(state.parent) == before
    # Nor does a second one differ, so nothing in it was made up.
    assert printed(capsys, *argv, "--runtime", runtime) == text
    assert not state.exists()


@pytest.mark.parametrize("runtime", ["docker", "native"])
def test_the_lines_of_a_plan_make_the_secrets_that_it_names_for_their_user_alone_and_show_none(
    nowhere: Path, state: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_this_user")
    argv = (*HEAD, "--runtime", runtime, "--tls", "self-signed")
    first = printed(capsys, *argv)
    started = re.compile("docker run|mkdir -p (?!.*/secrets/)|install -D|env ")
    making = list(itertools.takewhile(lambda line: not started.match(line), first.splitlines()))
    # Labels have what tells one secret from another: the shell's, for those that it makes.
    labels = re.findall(r"--label ('io.vllmray.secrets=\S+)", first)
    making += [f"echo {label}" for label in labels]
    done = subprocess.run(["sh", "-eu"], input="\n".join(making), text=True, check=True, capture_output=True)
    text = printed(capsys, *argv)
    shown = [label.strip("'") for label in re.findall(r"--label ('io.vllmray.secrets=\S+)", text)]
    assert done.stdout.splitlines() == shown
    assert len(shown) == (2 if runtime == "docker" else 0)
    assert "# secrets that do not exist yet" in first
    assert "# secrets that do not exist yet" not in text
    secrets = kept(state)
    assert set(secrets) == {"ray_token", "api_key", "scrape_token", "tls.crt", "tls.key"}
    assert not [secret for name, secret in secrets.items() if name != "tls.crt" and secret in text]
    assert not [line for line in secrets["tls.key"].splitlines() if line in text]
    assert "hf_of_this_user" not in text
    for name in secrets:
        assert str(state / "secrets/vllmray" / name) in text
    for path in (state / "secrets/vllmray").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for folder in (state, state / "secrets", state / "secrets/vllmray"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    # `up` takes them for its own.
    store = store_of("vllmray")
    assert self_signed("10.0.0.1", store).chain == secrets["tls.crt"] + "\n"
    assert all(store.have(name) == secrets[name] for name in (RAY_TOKEN, API_KEY, SCRAPE_TOKEN))
    assert secrets["api_key"].startswith("sk-")


LOGINS = {
    "MODELSCOPE_API_TOKEN": "ms-very-secret",
    "AWS_ACCESS_KEY_ID": "AKIAVERYSECRET",
    "AWS_SECRET_ACCESS_KEY": "aws/very+secret",
    "AWS_SESSION_TOKEN": "session-very-secret",
}
SAYS_MODELSCOPE = "MODELSCOPE_CREDENTIALS_PATH=/vllmray/secrets/modelscope"
SAYS_AWS = "AWS_SHARED_CREDENTIALS_FILE=/vllmray/secrets/aws_credentials"


@pytest.mark.parametrize("command", [HEAD, WORKER, (*HEAD[:3], *HEAD[5:], "--tls", "self-signed")])
@pytest.mark.parametrize(
    ("model", "says"),
    [
        (("--model", "s3://bucket/model"), {SAYS_AWS}),
        (("--model", "org/name", "--env", "VLLM_USE_MODELSCOPE=True"), {SAYS_MODELSCOPE}),
        (("--model", "org/name"), set()),
    ],
)
@pytest.mark.parametrize("place", ["environment", ".env"])
def test_logins_to_modelscope_and_s3_are_files_of_nodes_whose_model_is_there(
    nowhere: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    *,
    command: tuple[str, ...],
    model: tuple[str, ...],
    says: set[str],
    place: str,
) -> None:
    store_of("vllmray").keep(RAY_TOKEN, TOKEN)
    if place == ".env":
        (nowhere / ".env").write_text("".join(f"{name}='{value}'\n" for name, value in LOGINS.items()))
    else:
        for name, value in LOGINS.items():
            monkeypatch.setenv(name, value)
    text = printed(capsys, *command, *model, "--runtime", "docker")
    assert not [value for value in LOGINS.values() if value in text]
    assert {word for word in (SAYS_AWS, SAYS_MODELSCOPE) if word in text} == says
    files = [line for line in text.splitlines() if line.startswith("# and /vllmray/secrets/")]
    containers = 1 if command is WORKER else 2
    found = {SAYS_AWS: ["aws_credentials"], SAYS_MODELSCOPE: ["modelscope/cookies", "modelscope/credentials/cookies"]}
    for word, names in found.items():
        for name in names:
            line = f"# and /vllmray/secrets/{name}, mode 0600, put there before the start"
            assert files.count(line) == (containers if word in says else 0)


def test_half_a_login_to_s3_is_refused_where_a_model_is_there(
    nowhere: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAVERYSECRET")
    assert "AWS_SECRET_ACCESS_KEY belong together" in printed(capsys, *HEAD, "--model", "s3://b/m", code=2)
    printed(capsys, *HEAD, "--model", "org/name")


def test_a_plan_for_another_host_whose_address_is_not_known_has_a_certificate_too(
    nowhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = (
        "up",
        "--role",
        "head",
        "--no-model-check",
        "--dry-run=commands",
        "--tls",
        "self-signed",
        "--host",
        "ssh://10.0.0.9",
    )
    text = printed(capsys, *argv)
    assert "NODE_IP" in text
    assert "--ssl-certfile=/vllmray/secrets/tls.crt" in text


def test_a_plan_shows_no_stated_secret_and_keeps_none_in_the_place_of_those_that_a_cluster_may_have(
    nowhere: Path, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_secrets()
    before = kept(state)
    (nowhere / "keys").write_text("sk-first\n\n  sk-second  \n")
    (nowhere / "keys").chmod(0o600)
    (nowhere / ".env").write_text(f"VLLMRAY_RAY_TOKEN={TOKEN}\nVLLM_API_KEY=sk-variable\n")
    for argv in ((*HEAD, "--api-key-file", "keys"), HEAD):
        text = printed(capsys, *argv)
        assert not [secret for secret in ("sk-first", "sk-second", "sk-variable", TOKEN) if secret in text]
        for name in ("ray_token", "api_key"):
            assert f"# and /vllmray/secrets/{name}, mode 0600, put there before the start" in text
            assert str(state / "secrets/vllmray" / name) not in text
        assert kept(state) == before


@pytest.mark.parametrize(
    ("option", "text", "mode", "words"),
    [
        ("--token-file", TOKEN, 0o644, "can be read by others"),
        ("--token-file", TOKEN, 0o622, "can be written by others"),
        ("--token-file", "short", 0o600, "too short for a token"),
        ("--token-file", f"{TOKEN} and {TOKEN}", 0o600, "printable ASCII characters without spaces"),
        ("--api-key-file", "sk-first", 0o640, "can be read by others"),
        ("--api-key-file", "\n \n", 0o600, "it is empty"),
        ("--api-key-file", "sk-fi\x07rst", 0o600, "printable ASCII characters without spaces"),
        ("--token-file", None, 0o600, "can't read"),
    ],
)
def test_a_file_that_is_no_secret_is_refused_without_a_word_of_it(
    nowhere: Path,
    state: Path,
    capsys: pytest.CaptureFixture[str],
    option: str,
    text: str | None,
    mode: int,
    words: str,
) -> None:
    if text is not None:
        (nowhere / "file").write_text(text)
        (nowhere / "file").chmod(mode)
    said = printed(capsys, *HEAD, option, "file", code=2)
    assert said.startswith(f"error: {option}: ")
    assert words in said
    assert TOKEN not in said
    assert "sk-" not in said
    name = {"--token-file": "ray_token", "--api-key-file": "api_key"}[option]
    assert not (state / "secrets/vllmray" / name).exists()


def test_an_open_endpoint_is_said_in_a_warning(nowhere: Path, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    warning = "the endpoint has no authentication (--no-api-key): anyone who reaches its port can use it"
    make_secrets()
    assert warning not in printed(capsys, *HEAD)
    said = printed(capsys, *HEAD, "--no-api-key")
    assert said.count(warning) == 1
    assert "/vllmray/secrets/api_key" not in said
    assert '"keyed": false' in said
    # A worker has no endpoint.
    assert warning not in printed(capsys, *WORKER, "--no-api-key")


def test_a_worker_without_a_token_is_refused_with_what_to_do(
    nowhere: Path, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = printed(capsys, *WORKER, "--cluster", "lab", code=3)
    assert "no token for cluster lab: the head 10.0.0.1 accepts no worker without it" in said
    assert "`vllmray token --cluster lab` on the head's host" in said
    assert "--token-file FILE" in said
    assert not state.exists()


def test_the_key_and_the_tokens_are_printed_alone_for_other_programs_to_read(
    nowhere: Path, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_secrets("lab")
    secrets = kept(state, "lab")
    for argv, name in (
        (("key",), "api_key"),
        (("key", "--scrape"), "scrape_token"),
        (("token",), "ray_token"),
        (("token", "show"), "ray_token"),
    ):
        assert exit_code(*argv, "--cluster", "lab") == 0
        captured = capsys.readouterr()
        assert (captured.out, captured.err) == (f"{secrets[name]}\n", "")
    (nowhere / ".env").write_text("VLLMRAY_CLUSTER=lab\nVLLM_PORT=none\n")  # a wrong setting is nothing to them
    assert printed(capsys, "key") == f"{secrets['api_key']}\n"
    assert printed(capsys, "token") == f"{secrets['ray_token']}\n"
    assert secrets["api_key"].startswith("sk-")
    assert len({*secrets.values()}) == len(secrets)
    assert all(len(bytes.fromhex(secrets[name])) == 32 for name in ("ray_token", "scrape_token"))


@pytest.mark.parametrize("argv", [("key",), ("key", "--scrape"), ("token",)])
def test_where_no_secret_is_kept_it_says_who_makes_one(
    nowhere: Path, state: Path, capsys: pytest.CaptureFixture[str], argv: tuple[str, ...]
) -> None:
    said = printed(capsys, *argv, "--cluster", "lab", code=4)
    assert "for cluster lab on this machine" in said
    assert "vllmray up --role head" in said
    assert not state.exists()


@pytest.mark.parametrize(("argv", "name"), [(("key",), API_KEY), (("token",), RAY_TOKEN)])
@pytest.mark.parametrize(("mode", "words"), [(0o644, "can be read by others"), (0o602, "can be written by others")])
def test_a_secret_that_others_can_read_is_refused(
    nowhere: Path,
    state: Path,
    capsys: pytest.CaptureFixture[str],
    argv: tuple[str, ...],
    name: str,
    mode: int,
    words: str,
) -> None:
    make_secrets()
    path = state / "secrets/vllmray" / name
    path.chmod(mode)
    for command in (argv, HEAD):
        said = printed(capsys, *command, code=2)
        assert f"error: {path} {words}" in said
        assert path.read_text().strip() not in said


@pytest.mark.parametrize("link", ["secrets/vllmray/ray_token", "secrets/vllmray", "secrets", "."])
def test_no_link_below_the_state_folder_is_followed(
    nowhere: Path, state: Path, capsys: pytest.CaptureFixture[str], link: str
) -> None:
    """Nor is the state folder itself one: what it led to might be anybody's."""
    make_secrets()
    path = (state / link).absolute()
    moved = path.rename(nowhere / "moved")
    path.symlink_to(moved)
    for command in (("token",), ("token", "rotate", "--runtime", "native"), HEAD):
        assert f"error: {path} is a symbolic link" in printed(capsys, *command, code=2)
    assert path.is_symlink()


def test_rotating_a_token_where_no_cluster_is_is_an_error_and_replaces_nothing(
    nowhere: Path, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rotate = ("token", "rotate", "--runtime", "native")
    assert "no cluster vllmray here" in printed(capsys, *rotate, code=4)
    make_secrets()
    before = kept(state)
    said = printed(capsys, *rotate, code=4)
    assert "no cluster vllmray here" in said
    assert "replaced" not in said
    assert kept(state) == before
    assert exit_code("token", "turn") == 2


def test_on_a_workers_host_no_token_is_rotated(nowhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is the head's to choose: another here would only keep this worker out."""
    store_of("lab").keep(RAY_TOKEN, TOKEN)
    record_a_node("lab", "worker", **{CONFIG: json.dumps({"head_ip": "10.0.0.1"})})
    said = printed(capsys, "token", "rotate", "--cluster", "lab", "--runtime", "native", code=4)
    assert "head's host" in said
    assert store_of("lab").get(RAY_TOKEN) == TOKEN


def record(role: str, **settings: Any) -> None:
    usual = {"head_ip": "10.0.0.1", "node_ip": "10.0.0.1", "network": "host", "ray_ports": {"dashboard": 8300}}
    record_a_node("lab", role, **{CONFIG: json.dumps(usual | settings)})


DASHBOARD = ("dashboard", "--cluster", "lab", "--runtime", "native")


def test_the_dashboard_of_this_machines_head_is_where_ray_puts_it(
    nowhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record("head")
    assert printed(capsys, *DASHBOARD) == "http://127.0.0.1:8300\n"


def test_the_dashboard_is_not_looked_for_where_it_can_not_be(nowhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no cluster lab here" in printed(capsys, *DASHBOARD, code=4)
    record("worker", node_ip="10.0.0.2")
    said = printed(capsys, *DASHBOARD, code=4)
    assert "the dashboard is on the head's host, 10.0.0.1" in said
    assert "--host" in said
    record("head", network="vllmray-lab")
    assert "only inside the cluster's Docker network" in printed(capsys, *DASHBOARD, code=4)
    assert exit_code(*DASHBOARD, "--port", "0") == 2


@pytest.mark.parametrize(
    "argv",
    [
        ("up", "--role", "head", "--no-model-check"),
        *[(command,) for command in ("status", "chat", "logs", "down", "dashboard")],
        ("token", "rotate"),
        *[("image", "inspect", "image:1"), ("image", "build"), ("image", "copy", "image:1", "--to", "10.0.0.2")],
    ],
)
@pytest.mark.parametrize("way", ["option", "variable"])
def test_no_command_speaks_to_a_daemon_over_tcp_without_tls(
    nowhere: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    argv: tuple[str, ...],
    way: str,
) -> None:
    address = "tcp://192.0.2.1:2375"
    if way == "option":
        argv = (*argv, "--host", address)
    else:
        monkeypatch.setenv("VLLMRAY_HOST", address)
    said = printed(capsys, *argv, code=3)
    assert f"error: {address} is a Docker daemon over TCP without TLS" in said
    assert "--insecure-docker-tcp" in said


def test_a_plan_over_hosts_speaks_to_none_without_tls_either(nowhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = make_model(nowhere, "smollm2-135m")
    said = printed(capsys, "plan", str(model), "--hosts", "tcp://192.0.2.1:2375", *DUMMY, code=3)
    assert "over TCP without TLS" in said


def test_rotating_on_a_daemon_that_is_refused_replaces_nothing(
    nowhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store_of("vllmray").keep(RAY_TOKEN, TOKEN)
    printed(capsys, "token", "rotate", "--host", "tcp://192.0.2.1:2375", code=3)
    assert store_of("vllmray").get(RAY_TOKEN) == TOKEN
    assert store_of("vllmray").get(SCRAPE_TOKEN) is None
