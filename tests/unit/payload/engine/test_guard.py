"""Which requests reach vLLM, asked of the middleware as its server would: scopes in, messages out."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from vllmray.payload.engine.guard import Guard, Policy, policy_of, refuse
from vllmray.payload.protocol import GUARD_SETTINGS

KEY, OTHER_KEY, LAST_KEY = "sk-first", "sk-second", "sk-third"
SCRAPE = "the-scrape-token"
# What is promised to users, written down a second time: a route that slips into the guard's own list shows here.
LISTED = [
    ("GET", "/v1/models"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/responses"),
    ("GET", "/v1/responses/resp_0a-1B"),
    ("POST", "/v1/responses/resp_0a-1B/cancel"),
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/audio/transcriptions"),
    ("POST", "/v1/audio/translations"),
    ("POST", "/v1/messages"),
    ("POST", "/v1/messages/count_tokens"),
]
# Routes of vllm 0.32 that are not listed.
UNLISTED = [
    ("POST", "/invocations"),
    ("GET", "/ping"),
    ("POST", "/tokenize"),
    ("POST", "/detokenize"),
    ("GET", "/version"),
    ("GET", "/load"),
    ("GET", "/server_info"),
    ("POST", "/pause"),
    ("POST", "/resume"),
    ("POST", "/sleep"),
    ("POST", "/collective_rpc"),
    ("POST", "/update_weights"),
    ("POST", "/reset_prefix_cache"),
    ("POST", "/v1/load_lora_adapter"),
    ("POST", "/pooling"),
    ("POST", "/v1/rerank"),
    ("GET", "/docs"),
    ("GET", "/redoc"),
    ("GET", "/openapi.json"),
]
CHAT = "/v1/chat/completions"
ELSEWHERE = ("192.0.2.9", 40000)
HERE = ("127.0.0.1", 40000)

Headers = list[tuple[bytes, bytes]]


def bearer(key: str) -> Headers:
    return [(b"authorization", f"Bearer {key}".encode())]


def x_api_key(key: str) -> Headers:
    return [(b"x-api-key", key.encode())]


def scope(
    method: str = "POST",
    path: str = CHAT,
    headers: Headers | None = None,
    *,
    client: tuple[str, int] | None = ELSEWHERE,
    root_path: str = "",
) -> dict[str, Any]:
    """A request as uvicorn describes it."""
    return {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": root_path,
        "query_string": b"",
        "headers": headers or [],
        "client": client,
    }


def socket_scope(path: str, headers: Headers | None = None) -> dict[str, Any]:
    return {"type": "websocket", "path": path, "root_path": "", "headers": headers or [], "client": ELSEWHERE}


def policy(**changes: Any) -> Policy:
    usual: dict[str, Any] = {"keys": [KEY, OTHER_KEY, LAST_KEY], "scrape_tokens": [SCRAPE]}
    return Policy(**(usual | changes))


@dataclass
class Asked:
    """What came of one request: whether it reached the application, and what was sent."""

    reached: bool = False
    received: int = 0
    sent: list[dict[str, Any]] = field(default_factory=list)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])


def ask(given: dict[str, Any], policy_there: Policy | None = None) -> Asked:
    """One request through the guard, to an application that notes that it was reached and says nothing."""
    asked = Asked()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope is given
        asked.reached = True

    async def receive() -> dict[str, Any]:
        asked.received += 1
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        asked.sent.append(message)

    asyncio.run(Guard(app, policy_there or policy())(given, receive, send))
    return asked


@pytest.mark.parametrize("form", [bearer, x_api_key])
@pytest.mark.parametrize(("method", "path"), LISTED)
def test_a_listed_route_answers_with_the_key_and_with_nothing_else(method: str, path: str, form: Any) -> None:
    there = policy()
    assert there.status(scope(method, path)) == 401
    assert there.status(scope(method, path, form("sk-wrong"))) == 401
    assert there.status(scope(method, path, form(SCRAPE))) == 401
    assert there.status(scope(method, path, form(KEY))) == 200


def test_each_of_several_keys_opens_also_the_last() -> None:
    there = policy()
    assert [there.status(scope(headers=bearer(key))) for key in (KEY, OTHER_KEY, LAST_KEY)] == [200] * 3
    assert policy(keys=[KEY]).status(scope(headers=bearer(LAST_KEY))) == 401


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        KEY[:-1],
        KEY + "x",
        KEY + KEY,
        KEY.upper(),
        f"{KEY},{KEY}",
        f"{KEY}, Bearer {KEY}",
        f"'{KEY}'",
        f"{KEY}\0",
        f"{KEY}\n{OTHER_KEY}",
        KEY.replace("s", "\N{LATIN SMALL LETTER LONG S}"),  # lower() and casefold() make an s of it
        KEY.replace("-", "\N{NON-BREAKING HYPHEN}"),
    ],
)
def test_what_is_nearly_the_key_opens_nothing(wrong: str) -> None:
    assert policy().status(scope(headers=bearer(wrong))) == 401
    assert policy().status(scope(headers=x_api_key(wrong))) == 401


@pytest.mark.parametrize("value", ["{key}", "Basic {key}", "Bearer{key}", "Bearer\t{key}", "Bearer", "Token {key}"])
def test_a_key_in_another_form_of_authorization_is_none(value: str) -> None:
    assert policy().status(scope(headers=[(b"authorization", value.format(key=KEY).encode())])) == 401


@pytest.mark.parametrize("value", ["Bearer {key}", "bearer {key}", "BEARER {key}", "Bearer   {key}", "Bearer {key} "])
def test_the_schemes_case_and_spaces_around_the_key_mean_nothing(value: str) -> None:
    assert policy().status(scope(headers=[(b"authorization", value.format(key=KEY).encode())])) == 200


def test_a_headers_name_means_the_same_in_any_case() -> None:
    assert policy().status(scope(headers=[(b"Authorization", f"Bearer {KEY}".encode())])) == 200
    assert policy().status(scope(headers=[(b"X-Api-Key", KEY.encode())])) == 200
    assert policy().status(scope(headers=[(b"x_api_key", KEY.encode())])) == 401


@pytest.mark.parametrize("form", [bearer, x_api_key])
def test_a_header_that_is_there_twice_says_nothing(form: Any) -> None:
    there = policy()
    assert there.status(scope(headers=form("sk-wrong") + form(KEY))) == 401
    assert there.status(scope(headers=form(KEY) + form("sk-wrong"))) == 401
    assert there.status(scope(headers=form(KEY) + form(KEY))) == 401


def test_of_two_kinds_of_header_a_bearers_is_the_one_that_counts() -> None:
    there = policy()
    assert there.status(scope(headers=bearer("sk-wrong") + x_api_key(KEY))) == 401
    assert there.status(scope(headers=bearer(KEY) + x_api_key("sk-wrong"))) == 200
    assert there.status(scope(headers=[(b"authorization", b"Basic dTpw"), *x_api_key(KEY)])) == 200


@pytest.mark.parametrize("value", [b"\xff\xfe", b"Bearer \xff\xfe", b"Bearer \x80", b"\x00", b"Bearer \xc5\xbf"])
def test_bytes_that_are_no_text_are_a_wrong_key(value: bytes) -> None:
    for name in (b"authorization", b"x-api-key", b"\xff"):
        assert policy().status(scope(headers=[(name, value)])) == 401


def test_a_key_elsewhere_in_the_request_is_none() -> None:
    given = scope(headers=[(b"cookie", f"api_key={KEY}".encode()), (b"proxy-authorization", f"Bearer {KEY}".encode())])
    given["query_string"] = f"api_key={KEY}&authorization=Bearer%20{KEY}".encode()
    assert policy().status(given) == 401


@pytest.mark.parametrize(("method", "path"), LISTED)
def test_a_listed_path_by_another_method_is_not_there(method: str, path: str) -> None:
    listed = {route_method for route_method, route in LISTED if route == path}
    for other in {
        "GET",
        "POST",
        "HEAD",
        "PUT",
        "PATCH",
        "DELETE",
        "TRACE",
        "OPTIONS",
        "WEBSOCKET",
        "post",
        "",
    } - listed:
        assert policy().status(scope(other, path, bearer(KEY))) == 404


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/v1",
        "/v1/",
        "/v1/models/",
        "//v1/models",
        "/v1//models",
        "/V1/models",
        "/v1/Models",
        "/v1/models ",
        " /v1/models",
        "/v1/models\n",
        "/v1/models\0",
        "/v1/models/..",
        "/health/../v1/models",
        "/./v1/models",
        "/v1/models;x",
        "/v1/models?x",
        "/v1/models#x",
        "/v1/%6dodels",
        "/v1\\models",
        "v1/models",
        "http://host/v1/models",
        "/v1/models/some-model",
        "/v1/mode\N{LATIN SMALL LETTER L WITH STROKE}s",
        "/\N{FULLWIDTH LATIN SMALL LETTER V}1/models",
        "/v\N{SUPERSCRIPT ONE}/models",
        "*",
    ],
)
def test_a_path_is_listed_to_the_letter_or_is_not_there(path: str) -> None:
    assert policy().status(scope("GET", path, bearer(KEY))) == 404
    assert policy(keys=None).status(scope("GET", path)) == 404
    assert policy().status(scope("GET", "/v1/models", bearer(KEY))) == 200


@pytest.mark.parametrize(
    "identifier",
    ["", ".", "..", "a/b", "a.b", "a%2fb", "a b", "a\n", "\N{LATIN SMALL LETTER E WITH ACUTE}", "a" * 129, "{id}"],
)
def test_an_id_in_a_path_is_one_plain_segment(identifier: str) -> None:
    assert policy().status(scope("GET", f"/v1/responses/{identifier}", bearer(KEY))) == 404
    assert policy().status(scope("POST", f"/v1/responses/{identifier}/cancel", bearer(KEY))) == 404
    assert policy().status(scope("GET", "/v1/responses/" + "a" * 128, bearer(KEY))) == 200


@pytest.mark.parametrize(
    ("root_path", "path", "status"),
    [
        ("/below", "/below/v1/models", 401),
        ("/below", "/v1/models", 401),  # Starlette looks for it as it is, where the prefix is not there
        ("/below", "/below/health", 200),
        ("/below", "/belowv1/models", 404),
        ("/below", "/below", 404),
        ("/below", "/below/below/v1/models", 404),
        ("/below", "/belo/w/v1/models", 404),
        ("/health", "/health/v1/models", 401),
        ("/health", "/health", 404),
        ("/v1", "/v1/health", 200),
        ("/v1", "/v1/models", 404),
        ("/v1/", "/v1/models", 401),  # no whole segment is left of it: Starlette takes no such prefix away
    ],
)
def test_the_path_is_looked_at_below_the_servers_own_prefix(root_path: str, path: str, status: int) -> None:
    assert policy().status(scope("GET", path, root_path=root_path)) == status


def test_a_server_that_says_nothing_of_a_prefix_has_none() -> None:
    given = scope("GET", "/v1/models", bearer(KEY))
    del given["root_path"]
    assert policy().status(given) == 200
    assert policy().status({**given, "root_path": None}) == 200


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
def test_metrics_are_for_this_host_itself(address: str) -> None:
    assert policy().status(scope("GET", "/metrics", client=(address, 1))) == 200
    assert policy(scrape_tokens=()).status(scope("GET", "/metrics", client=(address, 1))) == 200


@pytest.mark.parametrize(
    "client",
    [
        ("192.0.2.9", 1),
        ("128.0.0.1", 1),
        ("0.0.0.0", 1),
        ("::", 1),
        ("::2", 1),
        ("::ffff:192.0.2.9", 1),
        ("2001:db8::127.0.0.1", 1),
        ("localhost", 1),
        ("127.1", 1),
        ("127.0.0.1:80", 1),
        (" 127.0.0.1", 1),
        ("unix:/run/engine.sock", 1),
        ("", 0),
        None,  # a Unix socket, as uvicorn says it
        (),
    ],
)
def test_metrics_are_not_there_for_anyone_else(client: Any) -> None:
    there = policy()
    assert there.status(scope("GET", "/metrics", client=client)) == 404
    assert there.status(scope("GET", "/metrics", bearer(KEY), client=client)) == 404
    assert there.status(scope("GET", "/metrics", bearer(SCRAPE + "x"), client=client)) == 404
    assert there.status(scope("GET", "/metrics", bearer(SCRAPE), client=client)) == 200
    assert there.status(scope("GET", "/metrics", x_api_key(SCRAPE), client=client)) == 200


def test_without_a_scrape_token_none_is_right() -> None:
    there = policy(scrape_tokens=())
    for headers in ([], bearer(""), x_api_key(""), bearer("None")):
        assert there.status(scope("GET", "/metrics", headers)) == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/metrics"), ("HEAD", "/metrics"), ("GET", "/metrics/"), ("GET", "/metrics/x"), ("GET", "/Metrics")],
)
def test_metrics_are_one_route(method: str, path: str) -> None:
    assert policy().status(scope(method, path, bearer(SCRAPE), client=HERE)) == 404


def test_health_is_for_everyone_by_get_alone() -> None:
    assert policy().status(scope("GET", "/health")) == 200
    assert policy().status(scope("GET", "/health", bearer("sk-wrong"))) == 200
    for method in ("HEAD", "POST", "PUT", "DELETE", "OPTIONS", "get"):
        assert policy().status(scope(method, "/health", bearer(KEY))) == 404
    for path in ("/health/", "/health/x", "/healthz", "/health_generate"):
        assert policy().status(scope("GET", path, bearer(KEY))) == 404


def preflight(method: str, path: str, **headers: str) -> dict[str, Any]:
    given = {"origin": "https://page.example", "access_control_request_method": method} | headers
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in given.items() if value]
    return scope("OPTIONS", path, named)


@pytest.mark.parametrize(("method", "path"), LISTED)
def test_a_browsers_preflight_of_a_listed_route_needs_no_key(method: str, path: str) -> None:
    assert policy().status(preflight(method, path)) == 200


@pytest.mark.parametrize(
    "given",
    [
        preflight("POST", "/invocations"),
        preflight("GET", CHAT),
        preflight("DELETE", CHAT),
        preflight("POST", CHAT + "/"),
        preflight("GET", "/metrics"),
        preflight("WEBSOCKET /v1/realtime", ""),
        preflight("POST", CHAT, origin=""),
        preflight("", CHAT),
        scope("OPTIONS", CHAT),
        scope("OPTIONS", CHAT, bearer(KEY)),
        scope("OPTIONS", "*"),
        scope(
            "OPTIONS",
            CHAT,
            [(b"origin", b"https://a"), *[(b"access-control-request-method", method) for method in (b"POST", b"GET")]],
        ),
    ],
)
def test_any_other_question_for_options_is_for_a_path_that_is_not_there(given: dict[str, Any]) -> None:
    assert policy().status(given) == 404


def test_a_preflights_headers_open_nothing_to_another_method() -> None:
    given = preflight("GET", "/v1/models")
    for method in ("GET", "POST"):
        path = "/v1/models" if method == "GET" else CHAT
        assert policy().status({**given, "method": method, "path": path}) == 401


@pytest.mark.parametrize(("method", "path"), UNLISTED)
def test_a_route_that_is_not_listed_answers_as_a_path_that_does_not_exist(method: str, path: str) -> None:
    for headers in ([], bearer("sk-wrong"), bearer(KEY), x_api_key(KEY)):
        real, none = (ask(scope(method, each, headers)) for each in (path, "/no/such/path"))
        assert not real.reached
        assert real.sent == none.sent
        assert real.status == 404


def test_the_answer_for_what_is_not_there_is_starlettes_own() -> None:
    asked = ask(scope("GET", "/no/such/path"))
    assert asked.sent == [
        {
            "type": "http.response.start",
            "status": 404,
            "headers": [(b"content-length", b"22"), (b"content-type", b"application/json")],
        },
        {"type": "http.response.body", "body": b'{"detail":"Not Found"}'},
    ]


def test_a_refusal_for_want_of_a_key_says_so_as_openais_clients_read_it() -> None:
    asked = ask(scope())
    assert asked.status == 401
    assert asked.headers[b"www-authenticate"] == b"Bearer"
    assert asked.headers[b"content-length"] == str(len(asked.body)).encode()
    assert json.loads(asked.body)["error"]["code"] == "invalid_api_key"
    assert ask(scope(headers=bearer("sk-wrong"))).sent == asked.sent


def test_what_may_pass_is_given_on_with_nothing_said() -> None:
    asked = ask(scope(headers=bearer(KEY)))
    assert asked.reached
    assert (asked.sent, asked.received) == ([], 0)


def test_two_refusals_share_no_list_that_one_could_write_into() -> None:
    async def twice() -> list[Any]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(json.loads(json.dumps(message, default=lambda value: value.decode())))
            if "headers" in message:
                message["headers"].append((b"added", b"by the server"))

        await refuse(404, send)
        await refuse(404, send)
        return sent

    sent = asyncio.run(twice())
    assert sent[:2] == sent[2:]


def test_a_websocket_of_the_listed_route_needs_the_key() -> None:
    assert ask(socket_scope("/v1/realtime", bearer(KEY))).reached
    for path, headers in [("/v1/realtime", []), ("/v1/realtime", bearer("sk-wrong")), ("/other", bearer(KEY))]:
        asked = ask(socket_scope(path, headers))
        assert not asked.reached
        assert asked.received == 1  # the server waits for that before it takes an answer
        assert asked.sent == [{"type": "websocket.close", "code": 1008}]


def test_a_path_is_listed_for_a_websocket_or_for_requests_not_for_both() -> None:
    assert not ask(scope("GET", "/v1/realtime", bearer(KEY))).reached
    for headers in ([], bearer(KEY)):  # a method that a client made up
        assert ask(scope("WEBSOCKET", "/v1/realtime", headers)).status == 404
    for path in ("/health", "/metrics", "/v1/models", CHAT):
        given = socket_scope(path, bearer(KEY))
        assert not ask({**given, "client": HERE}).reached


def test_start_and_end_of_the_server_pass() -> None:
    assert ask({"type": "lifespan"}).reached


@pytest.mark.parametrize("kind", ["webtransport", "http2", "HTTP", "", "lifespan.shutdown"])
def test_a_kind_of_connection_that_is_not_known_is_refused(kind: str) -> None:
    asked = ask({**scope(headers=bearer(KEY)), "type": kind})
    assert not asked.reached
    assert asked.status == 404


def test_routes_that_are_allowed_besides_answer_with_the_key_to_get_and_post() -> None:
    there = policy(more=["/v1/rerank"])
    for method in ("GET", "POST"):
        assert there.status(scope(method, "/v1/rerank", bearer(KEY))) == 200
        assert there.status(scope(method, "/v1/rerank")) == 401
    for method, path in [("PUT", "/v1/rerank"), ("POST", "/v1/rerank/"), ("POST", "/v2/rerank"), ("POST", "/score")]:
        assert there.status(scope(method, path, bearer(KEY))) == 404
    assert policy().status(scope("POST", "/v1/rerank", bearer(KEY))) == 404


def test_allowing_metrics_as_a_route_does_not_open_them_to_the_key() -> None:
    there = policy(more=["/metrics"])
    assert there.status(scope("GET", "/metrics", bearer(KEY))) == 404
    assert there.status(scope("GET", "/metrics", bearer(SCRAPE))) == 200


def test_without_keys_the_listed_routes_are_open_and_no_others() -> None:
    there = policy(keys=None)
    for method, path in LISTED:
        assert there.status(scope(method, path)) == 200
    for method, path in [*UNLISTED, ("GET", "/metrics")]:
        assert there.status(scope(method, path)) == 404
    assert there.status(socket_scope("/v1/realtime")) == 200


def test_no_keys_at_all_is_not_the_same_as_asking_for_none() -> None:
    assert policy(keys=[]).status(scope(headers=bearer(KEY))) == 401
    assert policy(keys=[]).status(scope(headers=bearer(""))) == 401
    assert policy(keys=[]).status(scope()) == 401


def put(folder: Path, *, keys: bytes | None = b"sk-file\n", scrape: bytes | None = b"scrape-file\n") -> Path:
    """A folder as the engine's container has it."""
    (folder / "secrets").mkdir()
    for name, content in (("api_key", keys), ("scrape_token", scrape)):
        if content is not None:
            (folder / "secrets" / name).write_bytes(content)
    return folder


def told(**settings: Any) -> dict[str, str]:
    return {GUARD_SETTINGS: json.dumps({"keyed": True, "allow_routes": []} | settings)}


def test_the_policy_comes_from_the_files_and_the_variable(tmp_path: Path) -> None:
    there = policy_of(put(tmp_path), told(allow_routes=["/v1/rerank"]))
    assert there.status(scope(headers=bearer("sk-file"))) == 200
    assert there.status(scope("POST", "/v1/rerank", bearer("sk-file"))) == 200
    assert there.status(scope(headers=bearer("sk-other"))) == 401
    assert there.status(scope(headers=bearer("scrape-file"))) == 401
    assert there.status(scope("GET", "/metrics", bearer("scrape-file"))) == 200


def test_each_line_of_the_file_is_a_key_and_an_empty_one_is_none(tmp_path: Path) -> None:
    there = policy_of(put(tmp_path, keys=b"\n  sk-one \r\n\n\tsk-two\n  \nsk-three"), told())
    assert [there.status(scope(headers=bearer(key))) for key in ("sk-one", "sk-two", "sk-three")] == [200] * 3
    for wrong in ("", " ", "sk-one\nsk-two", "sk-one sk-two"):
        assert there.status(scope(headers=bearer(wrong))) == 401
        assert there.status(scope(headers=x_api_key(wrong))) == 401


def test_an_open_endpoint_needs_no_key_file_and_looks_at_none(tmp_path: Path) -> None:
    assert policy_of(put(tmp_path, keys=None), told(keyed=False)).status(scope()) == 200


@pytest.mark.parametrize(
    ("files", "environ"),
    [
        ({"keys": None}, told()),
        ({"keys": b""}, told()),
        ({"keys": b" \n\n\t\n"}, told()),
        ({"keys": b"\xff\xfe\n"}, told()),
        ({"scrape": None}, told()),
        ({"scrape": b"\n"}, told()),
        ({"scrape": None}, told(keyed=False)),
        ({}, {}),
        ({}, {GUARD_SETTINGS: ""}),
        ({}, {GUARD_SETTINGS: "{"}),
        ({}, {GUARD_SETTINGS: "{}"}),
        ({}, {GUARD_SETTINGS: '{"keyed": true}'}),
        ({}, {GUARD_SETTINGS: '{"allow_routes": []}'}),
    ],
)
def test_whatever_is_missing_or_no_sense_ends_the_server_before_it_serves(
    tmp_path: Path, files: dict[str, Any], environ: dict[str, str]
) -> None:
    put(tmp_path, **files)
    with pytest.raises((LookupError, OSError, ValueError)):
        policy_of(tmp_path, environ)


@pytest.mark.parametrize("text", ["[]", "null", "1", '"keyed"', '{"keyed": true, "allow_routes": null}'])
def test_settings_of_another_shape_end_it_too(tmp_path: Path, text: str) -> None:
    with pytest.raises((LookupError, TypeError, ValueError)):
        policy_of(put(tmp_path), {GUARD_SETTINGS: text})


def test_a_folder_in_a_keys_place_ends_it(tmp_path: Path) -> None:
    put(tmp_path, keys=None)
    (tmp_path / "secrets/api_key").mkdir()
    with pytest.raises(OSError, match="directory"):
        policy_of(tmp_path, told())


def test_a_guard_that_is_told_nothing_looks_beside_its_own_file_and_fails_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(GUARD_SETTINGS, told()[GUARD_SETTINGS])

    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    with pytest.raises(FileNotFoundError, match="secrets/api_key"):
        Guard(app)
