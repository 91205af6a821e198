"""What docs/security.md says, on a cluster of two hosts as `vllmray up` makes it, seen from a third beside it.

One cluster for all of the tests here; the secrets are those that vllmray made.
"""

from __future__ import annotations

import http.client
import json
import re
import shlex
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.e2e.conftest import User, Users
from tests.rig.hosts import DESK_ADDRESS, Rig, TestHost, run
from tests.rig.settings import ENGINE_FLAGS, base_settings
from vllmray.demo.run import QUESTION
from vllmray.ray.ports import RayPorts

REPOSITORY = Path(__file__).parents[2]
MATRIX = REPOSITORY / "docs/routes.md"
SECURITY = REPOSITORY / "docs/security.md"
OWN_USER = "1234:1234"
HF_TOKEN = "hf_not_a_real_token_but_a_secret"
NOT_FOUND = b'{"detail":"Not Found"}'


@dataclass(frozen=True, slots=True)
class Cluster:
    head: User
    worker: User
    outside: TestHost
    secrets: dict[str, str]
    """By name, as `vllmray token` and `vllmray key` print them."""
    said: str
    """All that the commands printed."""

    @property
    def members(self) -> tuple[User, User]:
        return self.head, self.worker


@pytest.fixture(scope="module")
def cluster(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    users = []
    for host in rig.hosts:
        host.clear()
        folder = tmp_path_factory.mktemp(f"host{host.number}")
        host.environment["XDG_STATE_HOME"] = str(folder / "state")
        settings = base_settings(rig) | {"HF_TOKEN": HF_TOKEN, "VLLMRAY_TLS": "self-signed", "VLLMRAY_USER": OWN_USER}
        del settings["VLLMRAY_RAY_TOKEN"], settings["VLLM_API_KEY"]
        users.append(User(host, folder, settings))
        users[-1].write_settings()
    head, worker, outside, *_ = users
    # So that the server's own list of its routes can be read.
    flags = ("--role", "head", "--allow-route", "/openapi.json", *ENGINE_FLAGS)
    said = [head.vllmray("up", "--no-wait", *flags)]
    secrets = {
        "ray_token": head.vllmray("token").stdout.strip(),
        "api_key": head.vllmray("key").stdout.strip(),
        "scrape_token": head.vllmray("key", "--scrape").stdout.strip(),
        "hf_token": HF_TOKEN,
    }
    token = worker.folder / "vllmray.token"
    token.touch(mode=0o600)
    token.write_text(secrets["ray_token"] + "\n")
    join = ("up", "--role", "worker", "--head-ip", head.host.address, "--token-file", "vllmray.token")
    said.append(worker.vllmray(*join))
    said.append(head.vllmray("up", *flags))
    assert [done.returncode for done in said] == [0, 0, 0]
    text = "".join(done.stdout + done.stderr for done in said)
    yield Cluster(head, worker, outside.host, secrets, text)
    for user in (head, worker):
        user.vllmray("down")
    for host in rig.hosts:
        host.clear()


@dataclass(frozen=True, slots=True)
class Listener:
    address: str
    port: int
    process: str


def listeners(host: TestHost) -> list[Listener]:
    """Who listens in a host's network, but for its own sshd and daemon."""
    found = []
    for line in run(*host.inside("ss", "-Hltnp")).stdout.splitlines():
        address, _, port = line.split()[3].rpartition(":")
        process = re.search(r'users:\(\("([^"]*)"', line)
        if int(port) not in (22, 2375):
            found.append(Listener(address.strip("[]"), int(port), process[1] if process else "?"))
    return found


def documented() -> dict[str, dict[str, str]]:
    """The table of ports in docs/security.md, by the first cell, with its columns by name."""
    lines = iter(SECURITY.read_text().splitlines())
    header = next(line for line in lines if line.startswith("| port"))
    names = [cell.strip() for cell in header.strip("|").split("|")]
    next(lines)
    rows = {}
    for line in lines:
        if not line.startswith("|"):
            break
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        rows[cells[0]] = dict(zip(names, cells, strict=True))
    return rows


def row_of(listener: Listener) -> str:
    """The first cell of the row that a listener belongs to."""
    named = {port: name for name, port in RayPorts().single().items()}
    ports = RayPorts()
    if listener.port == 8000:
        return "endpoint, 8000"
    if listener.port in named:
        return f"{named[listener.port]}, {listener.port}"
    if ports.min_worker <= listener.port <= ports.max_worker:
        return f"worker, {ports.min_worker}-{ports.max_worker}"
    return "any other"


def test_every_listening_port_is_in_the_documented_list_and_the_list_has_no_other(cluster: Cluster) -> None:
    rows = documented()
    seen = set()
    for user in cluster.members:
        role = "head" if user is cluster.head else "worker"
        for listener in listeners(user.host):
            name = row_of(listener)
            assert name in rows, listener
            row = rows[name]
            assert row["on"] in ("every node", role), (listener, row)
            patterns = re.findall(r"`([^`]*)`", row["process"])
            assert any(fnmatch(listener.process, pattern) for pattern in patterns), (listener, row)
            if row["other hosts reach it"] == "no":
                assert listener.address == "127.0.0.1", (listener, row)
            seen.add(name)
    assert seen == set(rows)


def test_without_the_token_ray_tells_nothing_and_runs_nothing(cluster: Cluster) -> None:
    named = {"worker": ()} | {port: name for name, port in RayPorts().single().items()}
    ports: dict[str, list[tuple[str, int]]] = {}
    for user in cluster.members:
        for listener in listeners(user.host):
            service = row_of(listener).partition(",")[0]
            if service in (*named.values(), "worker"):
                ports.setdefault(user.host.address, []).append((service, listener.port))
    ports = {address: sorted(set(found)) for address, found in ports.items()}
    request = {"head": cluster.head.host.address, "ports": ports, "token": cluster.secrets["ray_token"]}
    script = Path(__file__).with_name("outsider.py")
    said = json.loads(
        cluster.outside.docker(
            *("run", "--rm", "--network", "host", "--volume", f"{script}:/outsider.py:ro"),
            *(cluster.head.settings["VLLMRAY_IMAGE"], "python3", "/outsider.py", json.dumps(request)),
        )
    )
    health = "/api/local_raylet_healthz"  # public by Ray's own decision, and says "success"
    for attempt, outcome in said.items():
        kind, rest = attempt.split(" ", 1)
        service = rest.split(" ")[0]
        if service == "dashboard":
            assert outcome.startswith("refused: "), attempt
        elif rest.startswith("ray"):
            assert outcome.startswith("works: " if kind == "right" else "fails: "), (attempt, outcome)
        elif rest.endswith(health):
            assert outcome == "200 b'success'", (attempt, outcome)
        elif service in ("dashboard_agent_listen", "runtime_env_agent"):
            wanted = {"none": ("401",), "wrong": ("403",), "right": ("200", "400", "404", "500")}[kind]
            assert outcome.startswith(wanted), (attempt, outcome)
        else:
            assert outcome == ("OK" if kind == "right" else "UNAUTHENTICATED"), (attempt, outcome)
        if kind != "right":
            assert not [user.host.address for user in cluster.members if f"node:{user.host.address}" in outcome]
    assert {"none gcs", "none worker", "none ray job", "none ray client"} <= {
        " ".join(attempt.split(" ")[:3]) if " ray " in attempt else " ".join(attempt.split(" ")[:2]) for attempt in said
    }


def ask(
    cluster: Cluster, method: str, path: str, key: str | None, *, header: str = "Authorization"
) -> tuple[int, bytes]:
    """A request to the endpoint from this machine, which is no host of the cluster; status and body."""
    certificate = Path(cluster.head.host.environment["XDG_STATE_HOME"], "vllmray/secrets/vllmray/endpoint.crt")
    trust = ssl.create_default_context(cafile=str(certificate))
    connection = http.client.HTTPSConnection(cluster.head.host.address, 8000, timeout=60, context=trust)
    headers = {"Content-Type": "application/json"}
    if key:
        headers[header] = f"Bearer {key}" if header == "Authorization" else key
    connection.request(method, path, body=b"{}" if method in ("POST", "PUT", "PATCH") else None, headers=headers)
    answer = connection.getresponse()
    status, body = answer.status, answer.read()
    connection.close()
    return status, body


def routes(cluster: Cluster) -> set[tuple[str, str]]:
    """Every method and path of the running server: of its openapi.json, and of the table in its log."""
    status, body = ask(cluster, "GET", "/openapi.json", cluster.secrets["api_key"])
    assert status == 200
    found = {(method.upper(), path) for path, methods in json.loads(body)["paths"].items() for method in methods}
    log = cluster.head.vllmray("logs", "engine").stdout
    for path, methods in re.findall(r"Route: (\S+), Methods: (.*)", log):
        found |= {(method.strip(), path) for method in methods.split(",")}
    return found


def cell(cluster: Cluster, method: str, path: str, key: str | None) -> str:
    status, body = ask(cluster, method, path.replace("{response_id}", "resp_1"), key)
    if status == 404 and body in (NOT_FOUND, b""):  # a HEAD has no body
        return "404"
    return "401" if status == 401 else "answers"


def test_every_route_of_the_server_with_no_key_a_wrong_key_and_the_right_key(cluster: Cluster) -> None:
    lines = []
    for method, path in sorted(routes(cluster), key=lambda route: (route[1], route[0])):
        cells = [cell(cluster, method, path, key) for key in (None, "sk-wrong", cluster.secrets["api_key"])]
        lines.append(f"| {method} {path} | {' | '.join(cells)} |")
    print("\n".join(lines))
    table = [line for line in MATRIX.read_text().splitlines() if re.match(r"\| [A-Z]+ /", line)]
    assert lines == table


def test_a_path_that_is_closed_answers_as_one_that_does_not_exist(cluster: Cluster) -> None:
    for path in ("/invocations", "/pause", "/update_weights", "/collective_rpc", "/docs", "/tokenize", "/metrics"):
        for method in ("GET", "POST"):
            there = ask(cluster, method, path, cluster.secrets["api_key"])
            nowhere = ask(cluster, method, "/no-such-path", cluster.secrets["api_key"])
            assert there == nowhere == (404, NOT_FOUND)


def test_metrics_are_for_the_host_itself_and_for_the_scrape_token(cluster: Cluster) -> None:
    assert ask(cluster, "GET", "/metrics", None) == (404, NOT_FOUND)
    assert ask(cluster, "GET", "/metrics", cluster.secrets["api_key"]) == (404, NOT_FOUND)
    status, body = ask(cluster, "GET", "/metrics", cluster.secrets["scrape_token"])
    assert (status, b"vllm:" in body) == (200, True)
    here = run(*cluster.head.host.inside("curl", "-s", "--insecure", "https://127.0.0.1:8000/metrics")).stdout
    assert "vllm:" in here
    # The scrape token opens nothing else.
    assert ask(cluster, "GET", "/v1/models", cluster.secrets["scrape_token"])[0] == 401


def test_the_key_is_taken_as_openais_and_as_anthropics_clients_send_it(cluster: Cluster) -> None:
    key = cluster.secrets["api_key"]
    assert ask(cluster, "GET", "/v1/models", key)[0] == 200
    assert ask(cluster, "GET", "/v1/models", key, header="x-api-key")[0] == 200
    assert ask(cluster, "GET", "/health", None)[0] == 200


def test_the_printed_request_reads_the_key_from_its_file(cluster: Cluster) -> None:
    (line,) = [line for line in cluster.said.splitlines() if line.startswith("curl ")]
    answer = run("sh", "-c", f"{line} --silent --noproxy '*'", env=cluster.head.host.environment)
    assert json.loads(answer.stdout)["choices"][0]["message"]["content"]
    assert cluster.secrets["api_key"] not in line


def environments(host: TestHost) -> str:
    """The environment and command line of every process in a host's network."""
    ours = Path(f"/run/netns/{host.namespace}").stat().st_ino
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "ns/net").stat().st_ino == ours:
                found += [(process / name).read_bytes().decode(errors="replace") for name in ("environ", "cmdline")]
        except OSError:
            continue
    return "\n".join(found)


def state_files(user: User) -> str:
    """What is below the user's state and cache folders, but for the files that the secrets are kept in."""
    state = Path(user.host.environment["XDG_STATE_HOME"])
    files = [path for path in state.rglob("*") if path.is_file() and path.parent.parent.name != "secrets"]
    files += [
        path for path in Path(user.host.environment["HOME"], ".cache/vllmray/images").rglob("*") if path.is_file()
    ]
    return "\n".join(path.read_text(errors="replace") for path in files)


def test_no_secret_stands_anywhere_but_in_the_files_that_are_made_for_it(cluster: Cluster) -> None:
    places: dict[str, str] = {"what up printed": cluster.said}
    for user in cluster.members:
        name, docker = user.host.address, user.host.docker
        containers = docker("ps", "--all", "--quiet").split()
        places[f"docker inspect on {name}"] = docker("inspect", *containers)
        places[f"volumes on {name}"] = docker("volume", "inspect", *docker("volume", "ls", "--quiet").split())
        places[f"image on {name}"] = docker("inspect", user.settings["VLLMRAY_IMAGE"])
        for container in containers:
            logs = run("docker", "-H", user.host.docker_host, "logs", container)
            places[f"docker logs {container} on {name}"] = logs.stdout + logs.stderr
        places[f"ps and environments on {name}"] = environments(user.host)
        places[f"status on {name}"] = user.vllmray("status", "--json").stdout + user.vllmray("status", "--raw").stdout
        places[f"state files on {name}"] = state_files(user)
        for path in (user.host.data / "containers").rglob("*"):
            if path.is_file():
                places[f"{path.name} of the daemon on {name}"] = path.read_text(errors="replace")
        # What Ray writes of its own: /tmp/ray is where its logs are.
        ray = docker("exec", "vllmray-head" if user is cluster.head else "vllmray-worker", "python3", "-c", READ_LOGS)
        places[f"Ray's logs on {name}"] = ray
    planned = cluster.head.vllmray("up", "--role", "head", "--dry-run=commands", *ENGINE_FLAGS)
    assert planned.returncode == 0
    places["--dry-run"] = planned.stdout + planned.stderr
    failed = run(*cluster.head.host.command("--debug", "up", "--role", "head", "--max-model-len", "1", *ENGINE_FLAGS),
                 check=False, cwd=cluster.head.folder, env=cluster.head.host.environment)  # fmt: skip
    assert failed.returncode == 4
    assert "Traceback" in failed.stderr
    places["--debug"] = failed.stdout + failed.stderr
    found = [
        (place, name) for place, text in places.items() for name, secret in cluster.secrets.items() if secret in text
    ]
    assert found == []
    looked_at = ("docker", "ps", "status", "Ray's logs", "--dry-run", "--debug")
    assert [place for place, text in places.items() if place.startswith(looked_at) and len(text) < 200] == []
    # Where they are: the search would find them.
    inside = cluster.head.host.docker("exec", "vllmray-engine", "sh", "-c", "cat /vllmray/secrets/*")
    assert all(secret in inside for secret in cluster.secrets.values())


READ_LOGS = (
    "import pathlib\n"
    "for path in pathlib.Path('/tmp/ray').rglob('*'):\n"
    "    if path.is_file(): print(path.read_text(errors='replace'))"
)


def test_secrets_are_files_for_one_user_on_both_sides(cluster: Cluster) -> None:
    docker = cluster.head.host.docker
    modes = docker("exec", "vllmray-engine", "sh", "-c", "stat -c '%a %u %n' /vllmray/secrets/*").splitlines()
    assert {line.split()[0] + line.split()[1] for line in modes} == {"6001234"}
    endpoint = {"ray_token", "hf_token", "api_key", "scrape_token", "tls.crt", "tls.key"}
    assert {line.rpartition("/")[2] for line in modes} == endpoint
    node = docker("exec", "vllmray-head", "ls", "/vllmray/secrets").split()
    assert node == ["hf_token", "ray_token"]
    kept = Path(cluster.head.host.environment["XDG_STATE_HOME"], "vllmray/secrets")
    assert oct(kept.stat().st_mode)[-3:] == "700"
    files = [path for path in kept.rglob("*") if path.is_file()]
    assert {oct(path.stat().st_mode)[-3:] for path in files} == {"600"}
    secrets = {"ray_token", "api_key", "api_key.header", "scrape_token", "tls.crt", "tls.key", "endpoint.crt"}
    # And a word of no secrecy, that the nodes are containers of this machine.
    assert {path.name for path in files} == secrets | {f"runtime.{socket.gethostname()}"}
    assert len(cluster.secrets["ray_token"]) == 64


def test_containers_have_no_capability_and_can_gain_none(cluster: Cluster) -> None:
    for user, name in (
        (cluster.head, "vllmray-head"),
        (cluster.head, "vllmray-engine"),
        (cluster.worker, "vllmray-worker"),
    ):
        docker = user.host.docker
        status = docker("exec", name, "cat", "/proc/self/status")
        facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert {facts[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
        assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")
        # Of what runs there, too, not only of what is started beside it.
        every = docker("exec", name, "sh", "-c", "cat /proc/[0-9]*/status | grep -h '^Cap\\|^NoNewPrivs'")
        assert {line.split()[1] for line in every.splitlines()} == {"0" * 16, "1"}


def test_containers_can_write_what_they_need_and_nothing_else(cluster: Cluster) -> None:
    written = {"/vllmray", "/var/lib/vllmray/cache", "/tmp/ray"}
    for user in cluster.members:
        docker = user.host.docker
        for found in json.loads(docker("inspect", *docker("ps", "--quiet").split())):
            host, name = found["HostConfig"], found["Name"].lstrip("/")
            assert (host["Privileged"], host["ReadonlyRootfs"]) == (False, True)
            assert (host["PidMode"], host["IpcMode"]) == ("", "private")
            shared = set() if name == "vllmray-worker" else {"/dev/shm"}
            assert {mount["Destination"] for mount in found["Mounts"] if mount["RW"]} == written | shared
            assert not [limit for limit in host["Ulimits"] or () if limit["Name"] == "memlock"]
            refused = run("docker", "-H", user.host.docker_host, "exec", name, "touch", "/usr/x", check=False)
            assert "Read-only file system" in refused.stderr


def test_a_join_without_the_token_or_with_another_is_refused_in_one_line(cluster: Cluster, tmp_path: Path) -> None:
    stranger = User(
        replace(cluster.outside, environment=cluster.outside.environment | {"XDG_STATE_HOME": str(tmp_path / "state")}),
        tmp_path,
        {name: value for name, value in cluster.worker.settings.items() if name != "HF_TOKEN"},
    )
    stranger.write_settings()
    join = ("up", "--role", "worker", "--head-ip", cluster.head.host.address)
    without = stranger.vllmray(*join)
    assert without.returncode == 3
    assert without.stderr.startswith("error: no token for cluster vllmray")
    assert len(without.stderr.strip().splitlines()) == 2  # the error and its hint
    (tmp_path / "wrong").touch(mode=0o600)
    (tmp_path / "wrong").write_text("f" * 64)
    wrong = stranger.vllmray(*join, "--token-file", "wrong")
    assert wrong.returncode == 3
    assert f"error: {stranger.host.docker_host}: the head {cluster.head.host.address} refuses this" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    assert stranger.containers() == {}
    assert not (tmp_path / "state").exists() or not list((tmp_path / "state").rglob("ray_token"))


def test_the_dashboard_is_reached_through_a_tunnel_and_asks_for_the_token(cluster: Cluster) -> None:
    here = cluster.head.vllmray("dashboard")
    assert here.stdout == "http://127.0.0.1:8265\n"
    tunnel = cluster.worker.start("dashboard", "--host", cluster.head.host.ssh_host, "--port", "18265")
    try:
        assert tunnel.stdout is not None
        assert tunnel.stdout.readline() == "http://127.0.0.1:18265\n"
        version = ("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1:18265/api/version")
        assert run(*cluster.worker.host.inside(*version)).stdout == "401"
        token = ("-H", f"Authorization: Bearer {cluster.secrets['ray_token']}")
        assert run(*cluster.worker.host.inside(*version, *token)).stdout == "200"
    finally:
        tunnel.terminate()
        tunnel.communicate(timeout=30)


def test_the_machine_that_asks_is_no_host_of_the_cluster(cluster: Cluster) -> None:
    addresses = {user.host.address for user in cluster.members}
    assert DESK_ADDRESS not in addresses
    assert cluster.outside.address not in addresses


def test_https_is_served_alone_and_by_the_callers_own_user(cluster: Cluster) -> None:
    address = cluster.head.host.address
    assert f"endpoint https://{address}:8000/v1" in cluster.said
    plain = run("curl", "--silent", "--noproxy", "*", f"http://{address}:8000/health", check=False)
    assert plain.returncode != 0
    unknown = run("curl", "--silent", "--noproxy", "*", f"https://{address}:8000/health", check=False)
    assert unknown.returncode == 60  # curl: the certificate's authority is not known
    said = cluster.head.vllmray("chat", QUESTION)
    assert (said.returncode, bool(said.stdout.strip())) == (0, True)
    for name in ("vllmray-head", "vllmray-engine"):
        assert cluster.head.host.docker("exec", name, "id", "-u").strip() == "1234"
    assert (cluster.head.folder / "models").stat().st_uid == 1234


def test_the_documented_firewall_lets_only_the_endpoint_through(cluster: Cluster) -> None:
    head, worker = (user.host for user in cluster.members)
    lines = [line.strip() for line in SECURITY.read_text().splitlines() if line.startswith("    nft ")]
    lines = [line.replace("10.0.0.1", head.address).replace("10.0.0.2", worker.address) for line in lines]
    assert len(lines) == 6
    try:
        for line in lines:
            run(*head.inside(*shlex.split(line)))
        assert {port for port in (22, 8000, 6379, 6380, 52365) if reaches(cluster.outside, head.address, port)} == {
            22,
            8000,
        }
        assert reaches(worker, head.address, 6379)
        assert ask(cluster, "GET", "/v1/models", cluster.secrets["api_key"])[0] == 200
        assert cluster.head.status()["ready"] is True
        assert cluster.worker.status()["ready"] is True
    finally:
        run(*head.inside("nft", "delete", "table", "inet", "vllmray"))
    assert reaches(cluster.outside, head.address, 6379)


def reaches(host: TestHost, address: str, port: int) -> bool:
    """Whether a connection from that host is accepted."""
    code = f"import socket; socket.create_connection(({address!r}, {port}), timeout=2)"
    return run(*host.inside("python3", "-c", code), check=False).returncode == 0


SNIFF = """
import socket, sys, time
listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
listener.settimeout(0.5)
print("listening", flush=True)
seen, until = b"", time.monotonic() + 10
while time.monotonic() < until and not all(word.encode() in seen for word in sys.argv[1:]):
    try:
        seen += listener.recv(65536)
    except TimeoutError:
        pass
print(*(word for word in sys.argv[1:] if word.encode() in seen))
"""


def test_the_token_crosses_the_network_as_it_is_and_by_https_the_key_does_not(cluster: Cluster) -> None:
    token, key = cluster.secrets["ray_token"], cluster.secrets["api_key"]
    argv = cluster.head.host.inside("python3", "-c", SNIFF, token, key)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as sniffer:
        assert sniffer.stdout is not None
        assert sniffer.stdout.readline() == "listening\n"
        assert ask(cluster, "GET", "/v1/models", key)[0] == 200
        cluster.worker.vllmray("status")  # asks the head's Ray, with the token
        assert sniffer.stdout.read().split() == [token]


# From here on each test has hosts of its own: with them the cluster above is gone.


def test_a_rotated_token_puts_out_who_has_the_old_one(users: Users) -> None:
    head, worker = users(1), users(2)
    for user in (head, worker):
        del user.settings["VLLMRAY_RAY_TOKEN"]
        user.write_settings()
    assert head.vllmray("up", "--role", "head", "--no-wait", *ENGINE_FLAGS).returncode == 0
    old = head.vllmray("token").stdout
    token = worker.folder / "vllmray.token"
    token.touch(mode=0o600)
    token.write_text(old)
    join = ("up", "--role", "worker", "--head-ip", head.host.address)
    assert worker.vllmray(*join, "--token-file", token.name).returncode == 0
    before = head.containers()
    rotated = head.vllmray("token", "rotate")
    assert rotated.returncode == 0
    assert "--recreate" in rotated.stdout
    new = head.vllmray("token").stdout
    assert new != old
    assert new.strip() not in rotated.stdout + rotated.stderr
    after = head.containers()
    assert not [name for name in ("vllmray-head", "vllmray-engine") if before[name] == after[name]]
    refused = worker.vllmray(*join, "--recreate")
    assert refused.returncode == 3
    assert "refuses this cluster's token" in refused.stderr
    token.write_text(new)
    assert worker.vllmray(*join, "--token-file", token.name, "--recreate").returncode == 0
    # It is kept, and need not be named again.
    assert worker.vllmray(*join).returncode == 0
    assert worker.status()["ready"] is True


def test_a_docker_daemon_over_tcp_without_tls_is_refused(users: Users) -> None:
    first = users(1)
    address = f"tcp://{first.host.address}:2375"
    for argv in (("status",), ("down",), ("up", "--role", "head"), ("image", "inspect", "x"), ("token", "rotate")):
        refused = first.vllmray(*argv, "--host", address)
        assert refused.returncode == 3
        assert f"{address} is a Docker daemon over TCP without TLS" in refused.stderr
    assert first.vllmray("status", "--host", address, "--insecure-docker-tcp").returncode == 4
    first.write_settings(VLLMRAY_INSECURE_DOCKER_TCP="true")
    assert first.vllmray("status", "--host", address).returncode == 4


def test_a_host_whose_key_is_not_known_is_refused(users: Users) -> None:
    first = users(1)
    trusting = first.folder / "bin"
    trusting.mkdir()
    # As a user has it who turned the question off: what is said on the command line wins (ssh_config(5)).
    (trusting / "ssh").write_text(
        '#!/bin/sh\nexec /usr/bin/ssh "$@" -oStrictHostKeyChecking=no -oUserKnownHostsFile=/dev/null\n'
    )
    (trusting / "ssh").chmod(0o755)
    environment = first.host.environment | {"PATH": f"{trusting}:{first.host.environment['PATH']}"}
    done = run(*first.host.command("status", "--host", first.host.ssh_host), check=False, env=environment)
    assert done.returncode == 3
    assert "Host key verification failed" in done.stderr
