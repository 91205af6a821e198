"""The engine's door in a real server: FastAPI and uvicorn of .venv-cpu, put together as vLLM does, spoken to in bytes.

vLLM takes uvicorn's own choice of a parser, which is httptools where it is installed; h11 is what is left without it.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import SecretStr

from tests.programs.support import copy_payload
from tests.rig.model import CPU_PYTHON
from tests.unit.payload.engine.test_guard import LISTED, UNLISTED
from vllmray.endpoint.chat import Endpoint
from vllmray.errors import VllmrayError
from vllmray.payload.protocol import GUARD_SETTINGS
from vllmray.secrets.certificate import Certificate, self_signed
from vllmray.secrets.store import SecretStore

PARSERS = ["httptools", "h11"]
KEY, SCRAPE = "sk-the-key-of-the-server", "the-scrape-token"
RIGHT = f"Authorization: Bearer {KEY}"
WRONG = "Authorization: Bearer sk-wrong"
APP = """
import json, re, socket, sys
import uvicorn
from fastapi import FastAPI, Request, WebSocket
from fastapi.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount

asked = json.loads(sys.argv[1])
app = FastAPI()

def reached(request: Request):
    return {"reached": request.url.path, "client": request.client.host, "data": [{"id": "small"}]}

for method, path in asked["routes"]:
    app.add_api_route(path.replace("resp_0a-1B", "{identifier}"), reached, methods=[method])
metrics = Mount("/metrics", PlainTextResponse("reached"))
metrics.path_regex = re.compile("^/metrics(?P<path>.*)$")  # as vllm/entrypoints/serve/instrumentator/metrics.py
app.router.routes.append(metrics)

async def talk(websocket: WebSocket):
    await websocket.accept()
    await websocket.send_text("reached")
    await websocket.close()

for path in ("/v1/realtime", "/unlisted"):
    app.add_api_websocket_route(path, talk)
app.add_middleware(
    CORSMiddleware, allow_origins=["*"], allow_credentials=False, allow_methods=["*"], allow_headers=["*"]
)
if asked["guarded"]:
    sys.path.insert(0, asked["site"])
    from vllmray.payload.engine.guard import Guard
    app.add_middleware(Guard)
app.root_path = asked["root_path"]
listener = socket.socket()
listener.bind(("0.0.0.0", 0))
listener.listen()
print(listener.getsockname()[1], flush=True)
quiet = {"log_level": "critical", "access_log": False, "timeout_keep_alive": 1}
config = uvicorn.Config(app, http=asked["parser"], **quiet, **asked["tls"])
uvicorn.Server(config).run(sockets=[listener])
"""


@dataclass(frozen=True)
class Answer:
    """What came back, as it was sent but for the time of day."""

    status: int
    headers: tuple[bytes, ...]
    body: bytes

    @property
    def reached(self) -> bool:
        return b"reached" in self.body


def parsed(reply: bytes) -> Answer:
    head, _, body = reply.partition(b"\r\n\r\n")
    line, *headers = head.split(b"\r\n")
    kept = tuple(header for header in headers if not header.lower().startswith(b"date:"))
    return Answer(int(line.split(b" ")[1]), kept, body)


@dataclass(frozen=True)
class Server:
    """A running one."""

    port: int
    parser: str

    def send(self, data: bytes, *, address: str = "127.0.0.1") -> bytes:
        """All that comes back until the server ends the connection."""
        with socket.create_connection((address, self.port), timeout=20) as connection:
            connection.sendall(data)
            reply = b""
            while piece := connection.recv(65536):
                reply += piece
        return reply

    def ask(
        self, target: str, *headers: str | bytes, method: str = "GET", address: str = "127.0.0.1", body: str = ""
    ) -> Answer:
        """One request, every byte of it as it is given."""
        lines = [f"{method} {target} HTTP/1.1", "Host: host", "Connection: close", *headers]
        if body or method in ("POST", "PUT", "PATCH"):
            lines.append(f"Content-Length: {len(body)}")
        encoded = [line if isinstance(line, bytes) else line.encode("latin-1") for line in lines]
        return parsed(self.send(b"\r\n".join([*encoded, b"", body.encode()]), address=address))


@contextmanager
def serving(
    folder: Path,
    parser: str = "httptools",
    *,
    guarded: bool = True,
    root_path: str = "",
    tls: Certificate | None = None,
    keys: str | None = KEY,
) -> Iterator[Server]:
    """The server as a process of its own, with the guard's file and its secrets as the engine's container has them."""
    if not CPU_PYTHON.exists():
        if os.environ.get("CI") == "true":
            pytest.fail("CI leaves nothing out, but there is no .venv-cpu here")
        pytest.skip("no .venv-cpu here: scripts/test makes it")
    (folder / "secrets").mkdir(parents=True)
    if keys is not None:
        (folder / "secrets/api_key").write_text(f"sk-first\n{keys}\n")
    (folder / "secrets/scrape_token").write_text(f"{SCRAPE}\n")
    copy_payload(folder)
    (folder / "app.py").write_text(APP)
    asked: dict[str, Any] = {
        "parser": parser,
        "site": str(folder / "site"),
        "guarded": guarded,
        "root_path": root_path,
        "routes": [("GET", "/health"), *LISTED, *(route for route in UNLISTED if not route[1].startswith("/docs"))],
        "tls": {},
    }
    if tls:
        (folder / "tls.crt").write_text(tls.chain)
        (folder / "tls.key").write_text(tls.key.get_secret_value())
        asked["tls"] = {"ssl_certfile": str(folder / "tls.crt"), "ssl_keyfile": str(folder / "tls.key")}
    environment = {"PATH": os.environ["PATH"], GUARD_SETTINGS: json.dumps({"keyed": True, "allow_routes": []})}
    argv = [str(CPU_PYTHON), str(folder / "app.py"), json.dumps(asked)]
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield Server(int(process.stdout.readline()), parser)
        finally:
            process.terminate()


@pytest.fixture(scope="module", params=PARSERS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("guarded") / "vllmray", request.param) as made:
        yield made


@pytest.fixture(scope="module")
def plain(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The same without the guard."""
    with serving(tmp_path_factory.mktemp("plain") / "vllmray", server.parser, guarded=False) as made:
        yield made


def test_a_listed_route_answers_with_the_key_and_with_nothing_else(server: Server) -> None:
    for method, path in LISTED:
        for headers in ([], [WRONG], ["x-api-key: sk-wrong"]):
            refused = server.ask(path, *headers, method=method)
            assert (refused.status, refused.reached) == (401, False), path
        for header in (RIGHT, f"X-Api-Key: {KEY}", f"authorization: bearer {KEY}"):
            answered = server.ask(path, header, method=method)
            assert (answered.status, answered.reached) == (200, True), path


def bare(answer: Answer) -> Answer:
    """Without what Starlette's CORSMiddleware adds to every answer of its own, which is inside the guard."""
    return replace(answer, headers=tuple(header for header in answer.headers if header != b"vary: Origin"))


def test_what_is_not_listed_answers_as_starlette_does_for_what_does_not_exist(server: Server, plain: Server) -> None:
    nothing = bare(plain.ask("/no/such/path"))
    assert (nothing.status, nothing.body) == (404, b'{"detail":"Not Found"}')
    assert server.ask("/no/such/path") == nothing
    for method, path in [*UNLISTED, ("GET", "/docs/oauth2-redirect"), ("GET", "/metrics/")]:
        assert plain.ask(path, method=method).status == 200, path  # it is there
        for headers in ([], [WRONG], [RIGHT], [f"x-api-key: {KEY}"]):
            assert server.ask(path, *headers, method=method) == nothing, path
    for method in ("GET", "POST", "PUT", "DELETE", "PATCH"):
        assert server.ask("/no/such/path", RIGHT, method=method) == nothing == bare(plain.ask("/no", method=method))


def test_a_method_that_a_route_does_not_have_is_not_told_from_a_path_that_does_not_exist(
    server: Server, plain: Server
) -> None:
    assert plain.ask("/v1/models", method="PUT").status == 405
    for method in ("PUT", "DELETE", "PATCH"):
        for path in ("/v1/models", "/health", "/metrics", "/invocations"):
            assert server.ask(path, RIGHT, method=method) == bare(plain.ask("/no/such/path"))


def test_an_answer_to_head_is_the_same_without_its_body(server: Server, plain: Server) -> None:
    for path in ("/health", "/v1/models", "/version", "/no/such/path"):
        answer = server.ask(path, RIGHT, method="HEAD")
        assert answer == bare(plain.ask("/no/such/path", method="HEAD"))
        assert (answer.status, answer.body) == (404, b"")


@pytest.mark.parametrize(
    ("target", "without", "with_key"),
    [
        ("/v1/models", 401, 200),
        ("/v1/models?", 401, 200),
        ("/v1/models?x=/health", 401, 200),
        ("/v1/models?/health", 401, 200),
        ("/v1/%6dodels", 401, 200),  # the server decodes it before it looks for a route, and so does the guard
        ("/v1%2Fmodels", 401, 200),
        ("/%76%31/models", 401, 200),
        ("/health", 200, 200),
        ("/%68ealth", 200, 200),
        ("/health?x=/v1/models", 200, 200),
        ("/v1/%256dodels", 404, 404),
        ("//v1/models", 404, 404),
        ("///v1/models", 404, 404),
        ("/v1//models", 404, 404),
        ("/v1/models/", 404, 404),
        ("/v1/models%2f", 404, 404),
        ("/v1/models%00", 404, 404),
        ("/v1/models%20", 404, 404),
        ("/v1/models%0a", 404, 404),
        ("/v1/models;x=/health", 404, 404),
        ("/V1/models", 404, 404),
        ("/./v1/models", 404, 404),
        ("/health/../v1/models", 404, 404),
        ("/health/%2e%2e/v1/models", 404, 404),
        ("/health%2f..%2fv1%2fmodels", 404, 404),
        ("/health/", 404, 404),
        ("/health//", 404, 404),
        ("/health;/v1/models", 404, 404),
        ("/health%3f/../v1/models", 404, 404),
        ("/health%23/../v1/models", 404, 404),
        ("/v1/responses/..", 404, 404),
        ("/v1/responses/a/../../models", 404, 404),
        ("/v1/responses/a%2fb", 404, 404),
        ("/v1/responses/%2e%2e%2fmodels", 404, 404),
        ("/v1/responses/a", 401, 200),
        ("/metrics/../health", 404, 404),
        ("/%ef%bd%961/models", 404, 404),
        ("/v%c2%b9/models", 404, 404),
        ("/%ff", 404, 404),
    ],
)
def test_a_path_means_to_the_guard_what_it_means_to_the_server(
    server: Server, target: str, without: int, with_key: int
) -> None:
    for headers, status in (([], without), ([RIGHT], with_key)):
        answer = server.ask(target, *headers)
        assert answer.status == status
        assert answer.reached == (status == 200)


@pytest.mark.parametrize(
    "target",
    [
        "http://host/health/../v1/models",
        "http://host/health/../version",
        "http://host/version",
        "http://host//version",
        "http://host/invocations?/health",
        "http:///version",
        "//host/version",
        "/version#/health",
        "/version\\..\\health",
        "version",
        "*",
        "host:80",
        "/\xe9",
        "/health/\x01/../version",
        "/health HTTP/1.1\r\nX-Junk: x\r\n\r\nGET /version",
    ],
)
def test_no_odd_form_of_a_target_gets_around_it(server: Server, target: str) -> None:
    allowed = (200, 400, 404) if target.startswith("/health HTTP") else (400, 404)
    for method in ("GET", "POST", "OPTIONS", "CONNECT", "TRACE", "BREW"):
        answer = server.ask(target, RIGHT, method=method)
        assert answer.status in allowed, method
        assert b"/version" not in answer.body
        assert b"/invocations" not in answer.body


def test_an_absolute_target_means_its_path_or_nothing(server: Server) -> None:
    with_key = server.ask("http://host/v1/models", RIGHT)
    without = server.ask("http://host/v1/models")
    # httptools takes the path out of it, h11 hands it on as it is.
    assert (without.status, with_key.status) == ((401, 200) if server.parser == "httptools" else (404, 404))


@pytest.mark.parametrize(
    "headers",
    [
        [RIGHT, RIGHT],
        [RIGHT, WRONG],
        [WRONG, RIGHT],
        [f"authorization: Bearer {KEY}", f"Authorization: Bearer {KEY}"],
        [f"x-api-key: {KEY}", f"X-API-Key: {KEY}"],
        [f"{RIGHT}, Bearer {KEY}"],
        [WRONG, f"x-api-key: {KEY}"],
        [f"x_api_key: {KEY}"],
        [f"Proxy-Authorization: Bearer {KEY}"],
        [f"Cookie: Authorization=Bearer {KEY}; x-api-key={KEY}"],
        [f"X-Forwarded-Authorization: Bearer {KEY}"],
        ["X-Original-URL: /health", "X-Rewrite-URL: /health"],
        ["X-HTTP-Method-Override: GET", "X-Forwarded-Prefix: /health", "X-Forwarded-Host: 127.0.0.1"],
        [f"Authorization: Bearer {KEY[:-1]}"],
        [f"Authorization: Bearer {KEY}x"],
        [f"Authorization: Bearer {KEY.upper()}"],
        [b"Authorization: Bearer \xff\xfe"],
        [b"Authorization: Bearer " + KEY.encode() + b"\xc2\xa0"],
        ["Authorization:"],
        ["Authorization: Bearer"],
        ["x-api-key:"],
    ],
)
def test_headers_that_do_not_say_the_key_once_open_nothing(server: Server, headers: list[str | bytes]) -> None:
    answer = server.ask("/v1/models", *headers)
    assert (answer.status, answer.reached) == (401, False)


@pytest.mark.parametrize(
    ("header", "seen"),
    [
        (f"Authorization : Bearer {KEY}", (400, 400)),
        (b"Authorization: Bearer \x00" + KEY.encode(), (400, 400)),
        (b"Authorization: Bearer " + KEY.encode() + b"\x00", (400, 400)),
        (b"Authorization\x00: Bearer " + KEY.encode(), (400, 400)),
        (b"Authorization: Bearer " + KEY.encode() + b"\rX: x", (400, 400)),
        # Lines that go on with the next one (RFC 9112, 5.2): h11 puts a space in between, httptools takes none.
        (f" Authorization: Bearer {KEY}", (400, 401)),
        (f"Authorization: Bearer {KEY[:5]}\r\n {KEY[5:]}", (400, 401)),
        ("Authorization: Bearer\r\n sk-wrong", (400, 401)),
        (f"Authorization: Bearer\r\n {KEY}", (400, 200)),
        # A line's end without \r is one to h11 (RFC 9112, 2.2), and the key after it is given.
        (f"X-Junk: x\n{RIGHT}", (400, 200)),
    ],
)
def test_a_header_that_is_none_is_refused_before_or_by_the_guard(
    server: Server, header: str | bytes, seen: tuple[int, int]
) -> None:
    answer = server.ask("/v1/models", header)
    assert answer.status == seen[PARSERS.index(server.parser)]
    assert answer.reached == (answer.status == 200)


def test_each_request_of_a_connection_is_asked_for_its_own_key(server: Server) -> None:
    first = f"GET /v1/models HTTP/1.1\r\nHost: host\r\n{RIGHT}\r\n\r\n"
    second = "GET /v1/models HTTP/1.1\r\nHost: host\r\nConnection: close\r\n\r\n"
    reply = server.send((first + second).encode())
    assert reply.count(b"HTTP/1.1 ") == 2
    assert reply.startswith(b"HTTP/1.1 200")
    assert b"HTTP/1.1 401" in reply
    assert reply.count(b"reached") == 1


def test_a_request_hidden_in_anothers_body_is_no_request(server: Server) -> None:
    hidden = "GET /health HTTP/1.1\r\nHost: host\r\nConnection: close\r\n\r\n"
    answer = server.ask("/v1/completions", RIGHT, method="POST", body=hidden)
    assert (answer.status, answer.body.count(b"reached")) == (200, 1)
    # Refused without a look at the body, which is not taken for the next request either.
    assert b"reached" not in server.ask("/no/such/path", RIGHT, method="POST", body=hidden).body
    assert b"reached" not in server.ask("/v1/completions", method="POST", body=hidden).body


def test_of_two_lengths_neither_lets_a_request_past_the_guard(server: Server) -> None:
    hidden = f"GET /version HTTP/1.1\r\nHost: host\r\n{RIGHT}\r\nConnection: close\r\n\r\n"
    for lengths in (
        ["Content-Length: 5", "Transfer-Encoding: chunked"],
        [f"Content-Length: {len(hidden) + 5}", "Transfer-Encoding: chunked"],
        ["Content-Length: 5", f"Content-Length: {len(hidden) + 5}"],
        ["Transfer-Encoding: identity, chunked", "Content-Length: 5"],
    ):
        head = ["POST /v1/completions HTTP/1.1", "Host: host", RIGHT, *lengths, "", "0\r\n\r\n"]
        reply = server.send(("\r\n".join(head) + hidden).encode())
        assert reply.startswith(b"HTTP/1.1 ")
        assert b"/version" not in reply


def own_address() -> str:
    """An address of this machine that is not loopback."""
    found = [
        address.address
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family == socket.AF_INET and not address.address.startswith("127.")
    ]
    if not found:
        pytest.skip("this machine has no address but loopback")
    return found[0]


def test_metrics_are_for_loopback_and_for_the_scrape_token(server: Server) -> None:
    elsewhere = own_address()
    assert server.ask("/metrics").reached
    missing = server.ask("/no/such/path", address=elsewhere)
    assert missing.status == 404
    for headers in ([], [RIGHT], [f"Authorization: Bearer {SCRAPE}x"]):
        assert server.ask("/metrics", *headers, address=elsewhere) == missing
    assert server.ask("/metrics", f"Authorization: Bearer {SCRAPE}", address=elsewhere).reached


@pytest.mark.parametrize(
    "header",
    [
        "X-Forwarded-For: 127.0.0.1",
        "X-Forwarded-For: ::1",
        "X-Forwarded-For: 127.0.0.1, 127.0.0.1",
        "X-Real-IP: 127.0.0.1",
        "Forwarded: for=127.0.0.1",
        "Host: localhost",
        "Client-IP: 127.0.0.1",
    ],
)
def test_another_host_does_not_become_this_one_by_saying_so(server: Server, header: str) -> None:
    """uvicorn believes X-Forwarded-For of 127.0.0.1 alone, unless FORWARDED_ALLOW_IPS says otherwise."""
    elsewhere = own_address()
    assert server.ask("/metrics", header, address=elsewhere).status in (400, 404)
    assert not server.ask("/metrics", header, address=elsewhere).reached


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("8.8.8.8", 404),
        ("127.0.0.1, 8.8.8.8", 404),  # what a client made up, and what the proxy added
        ("8.8.8.8, 127.0.0.1", 404),  # two proxies
        ("127.0.0.1, unknown", 404),
        ("unknown", 404),
        ("8.8.8.8:80", 404),
        ("[2001:db8::1]:80", 404),
        ("127.0.0.1", 200),
        ("", 200),
    ],
)
def test_behind_a_proxy_of_this_host_it_is_the_proxys_client_that_counts(
    server: Server, said: str, status: int
) -> None:
    assert server.ask("/metrics", f"X-Forwarded-For: {said}").status == status


def test_a_browsers_preflight_is_answered_for_listed_routes_alone(server: Server, plain: Server) -> None:
    origin = "Origin: https://page.example"
    asked = [origin, "Access-Control-Request-Method: POST"]
    answer = server.ask("/v1/chat/completions", *asked, method="OPTIONS")
    assert answer.status == 200
    assert answer == plain.ask("/v1/chat/completions", *asked, method="OPTIONS")
    assert plain.ask("/invocations", *asked, method="OPTIONS").status == 200
    assert server.ask("/invocations", *asked, method="OPTIONS") == bare(plain.ask("/no/such/path"))
    assert server.ask("/v1/chat/completions", origin, method="OPTIONS").status == 404
    assert server.ask("/v1/chat/completions", *asked, method="POST").status == 401


def websocket(server: Server, path: str, *headers: str) -> Answer:
    nonce = base64.b64encode(bytes(16)).decode()
    asked = [f"GET {path} HTTP/1.1", "Host: host", "Upgrade: websocket", "Connection: Upgrade"]
    asked += ["Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {nonce}", *headers, "", ""]
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall("\r\n".join(asked).encode())
        reply = b""
        while b"\r\n\r\n" not in reply or (b"101" in reply[:20] and b"reached" not in reply):
            piece = connection.recv(65536)
            if not piece:
                break
            reply += piece
    return parsed(reply)


def test_a_websocket_that_may_not_pass_is_refused_with_403(server: Server, plain: Server) -> None:
    answer = websocket(server, "/v1/realtime", RIGHT)
    assert (answer.status, answer.reached) == (101, True)
    assert websocket(plain, "/unlisted").status == 101
    for path, headers in [
        ("/v1/realtime", []),
        ("/v1/realtime", [WRONG]),
        ("/v1/realtime", [RIGHT, RIGHT]),
        ("/v1/realtime/", [RIGHT]),
        ("//v1/realtime", [RIGHT]),
        ("/unlisted", [RIGHT]),
        ("/health", [RIGHT]),
        ("/v1/models", [RIGHT]),
        ("/no/such/path", [RIGHT]),
    ]:
        assert websocket(server, path, *headers).status == 403, (path, headers)
    assert websocket(server, "/unlisted", RIGHT) == websocket(server, "/no/such/path", RIGHT)


def test_below_a_prefix_the_guard_and_the_server_look_at_the_same_path(tmp_path: Path) -> None:
    with serving(tmp_path / "vllmray", root_path="/health") as server:
        assert server.ask("/health/v1/models").status == 401
        assert server.ask("/health/v1/models", RIGHT).reached
        assert server.ask("/health/version", RIGHT).status == 404
        assert server.ask("/version", RIGHT).status == 404
        assert server.ask("/health/health").reached


def test_without_its_key_file_the_guard_lets_nothing_be_served(tmp_path: Path) -> None:
    with serving(tmp_path / "vllmray", keys=None) as server:
        for path in ("/health", "/v1/models", "/version", "/metrics", "/no/such/path"):
            answer = server.ask(path, RIGHT)
            assert (answer.status, answer.reached) == (500, False)


def test_our_client_speaks_tls_to_the_very_certificate_that_is_kept(tmp_path: Path) -> None:
    shown = self_signed("10.0.0.1", SecretStore(tmp_path / "state", "one"))
    other = self_signed("10.0.0.1", SecretStore(tmp_path / "state", "two"))
    with serving(tmp_path / "vllmray", tls=shown) as server, ExitStack() as stack:

        def client(key: str | None, certificate: str | None) -> Endpoint:
            made = Endpoint(f"https://127.0.0.1:{server.port}/v1", key, certificate=certificate)
            stack.callback(made.close)
            return made

        assert client(KEY, shown.chain).model() == "small"
        with pytest.raises(VllmrayError, match="API key of this machine was rejected"):
            client("sk-wrong", shown.chain).model()
        for certificate in (other.chain, None):
            with pytest.raises(VllmrayError, match="cannot connect"):
                client(KEY, certificate).model()


def test_another_certificate_of_the_same_authority_is_not_the_one_that_is_kept(tmp_path: Path) -> None:
    """What is kept of a user's own certificate is the file that the user named, which often ends in its authority's."""
    issue = authority()
    ours, others = issue("ours"), issue("others")
    with serving(tmp_path / "ours", tls=ours) as right, serving(tmp_path / "others", tls=others) as wrong:
        for server in (right, wrong):
            client = Endpoint(f"https://127.0.0.1:{server.port}/v1", KEY, certificate=ours.chain)
            try:
                if server is right:
                    assert client.model() == "small"
                else:
                    with pytest.raises(VllmrayError, match="cannot connect"):
                        client.model()
            finally:
                client.close()


def authority() -> Callable[[str], Certificate]:
    """Issues certificates, each with the authority's own after it."""
    signer, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)

    def signed(name: str, key: ec.EllipticCurvePrivateKey, *, ca: bool) -> str:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        )
        return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()

    def issue(name: str) -> Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        form, hidden = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        text = key.private_bytes(serialization.Encoding.PEM, form, hidden).decode()
        return Certificate(signed(name, key, ca=False) + signed("authority", signer, ca=True), SecretStr(text))

    return issue
