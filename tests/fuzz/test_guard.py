"""The engine's door under 10,000 requests that nobody sends by accident; what may pass is written down anew here."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.support import MANY
from tests.unit.payload.engine.test_guard import LISTED, UNLISTED
from vllmray.payload.engine.guard import Guard, Policy

KEY, SCRAPE = b"sk-Fuzz_0123456789-abcdef", b"Scrape-0123456789-fuzz"
POLICY = Policy(keys=["another-one", KEY.decode(), "a-third-one"], scrape_tokens=[SCRAPE.decode()])
LISTED_EXACTLY = {(method, path) for method, path in LISTED if "resp_" not in path}
Headers = Sequence[tuple[bytes, bytes]]
SPACES = b" \t\r\n\v\f"
LOOKALIKES = {
    "s": "\N{LATIN SMALL LETTER LONG S}\N{CYRILLIC SMALL LETTER DZE}\N{FULLWIDTH LATIN SMALL LETTER S}",
    "k": "\N{KELVIN SIGN}\N{GREEK SMALL LETTER KAPPA}",
    "-": "\N{HYPHEN}\N{NON-BREAKING HYPHEN}\N{EN DASH}\N{SOFT HYPHEN}-",
    "0": "\N{FULLWIDTH DIGIT ZERO}\N{ARABIC-INDIC DIGIT ZERO}O",
    "a": "\N{CYRILLIC SMALL LETTER A}\N{LATIN SMALL LETTER ALPHA}",
}


# What may pass, in this file's own words.


def looked_for(path: str, root: str) -> str:
    """What Starlette looks for (starlette/_utils.py, get_route_path)."""
    return path[len(root) :] if root and (path == root or path.startswith(root + "/")) else path


def is_listed(method: str, path: str) -> bool:
    if (method, path) in LISTED_EXACTLY:
        return True
    parts = path.split("/")
    if parts[:3] != ["", "v1", "responses"]:
        return False
    plain = set(string.ascii_letters + string.digits + "_-")
    if len(parts) < 4 or not parts[3] or len(parts[3]) > 128 or set(parts[3]) - plain:
        return False
    return (method, parts[4:]) in (("GET", []), ("POST", ["cancel"]))


def values(headers: Headers, name: bytes) -> list[bytes]:
    return [value for key, value in headers if key.lower() == name]


def says(headers: Headers, secret: bytes) -> bool:
    """The secret is there as a bearer's, in the only such header, or in the only x-api-key."""
    bearers, others = values(headers, b"authorization"), values(headers, b"x-api-key")
    as_bearer = len(bearers) == 1 and bearers[0][:7].lower() == b"bearer " and bearers[0][7:].strip(SPACES) == secret
    return as_bearer or others == [secret]


def says_nothing_else(headers: Headers) -> bool:
    return len(values(headers, b"authorization")) + len(values(headers, b"x-api-key")) == 1


def may_pass(scope: dict[str, Any]) -> bool:
    path, headers = looked_for(scope["path"], scope["root_path"]), scope["headers"]
    if scope["type"] == "websocket":
        return path == "/v1/realtime" and says(headers, KEY)
    if scope["type"] != "http":
        return False
    method = scope["method"]
    if (method, path) == ("GET", "/health"):
        return True
    if (method, path) == ("GET", "/metrics"):
        return bool(scope["client"] and scope["client"][0] in HERE) or says(headers, SCRAPE)
    if method == "OPTIONS":
        asked = values(headers, b"access-control-request-method")
        return len(asked) == 1 and is_listed(asked[0].decode("latin-1"), path) and bool(values(headers, b"origin"))
    return is_listed(method, path) and says(headers, KEY)


# What is sent. Whatever is one change away from something that counts stands in lists, so that a case is few choices.

HERE = ("127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1")
ELSEWHERE = ("192.0.2.7", "::ffff:192.0.2.7", "fe80::1%eth0", "localhost", "127.1", "unix:", "", "0.0.0.0")
ROUTES = [*LISTED, *UNLISTED, ("GET", "/health"), ("GET", "/metrics"), ("GET", "/v1/realtime"), ("GET", "")]
PATH_PIECES = [
    "/",
    "//",
    "/..",
    "/.",
    "%2f",
    "%00",
    "\0",
    "\n",
    "\r",
    ";",
    "?",
    "#",
    " ",
    "\\",
    "x",
    "\N{SUPERSCRIPT ONE}",
]
KEY_PIECES = [
    " ",
    "\t",
    "\n",
    "\0",
    ",",
    ";",
    "'",
    '"',
    "=",
    "\N{NO-BREAK SPACE}",
    "\N{ZERO WIDTH SPACE}",
    "Bearer ",
    "x",
]


def near(text: str, pieces: list[str]) -> list[str]:
    """Everything that one change makes of a text, but the text itself."""
    changed = {text * 2, text.upper(), text.lower(), text[::-1]}
    for at in range(len(text) + 1):
        before, letter, after = text[:at], text[at : at + 1], text[at + 1 :]
        changed |= {before + piece + letter + after for piece in pieces}
        changed |= {before + after, before, letter + after, before + letter.swapcase() + after}
        changed |= {before + like + after for like in LOOKALIKES.get(letter.lower(), "")}
    return sorted(changed - {text})


NEAR_ROUTES = [(method, path) for method, route in ROUTES for path in near(route, PATH_PIECES)]
NEAR_KEYS = [text for secret in (KEY, SCRAPE) for text in near(secret.decode(), KEY_PIECES)]
TEXTS = st.one_of(st.just(KEY.decode()), st.sampled_from([KEY.decode(), SCRAPE.decode()]), st.sampled_from(NEAR_KEYS))
FORMS = ["Bearer {}", "bearer {}", "BEARER  {} ", "{}", "Bearer{}", "Bearer\t{}", "Basic {}", "Bearer Bearer {}"]
FORMS += [
    "Bearer {0},{0}",
    "Bearer {0}, Bearer {0}",
    " Bearer {}",
    "Token {}",
    "Bearer \v{}",
    "Bearer\N{NO-BREAK SPACE}{}",
]
PLACES = [(name, form) for name in (b"authorization", b"Authorization", b"authorization ") for form in FORMS]
PLACES += [
    (name, form) for name in (b"x-api-key", b"X-API-Key", b"x_api_key", b"cookie") for form in ("{}", " {}", "{0},{0}")
]
USUAL_PLACES = [(b"authorization", "Bearer {}"), (b"x-api-key", "{}")]


def header(place: tuple[bytes, str], text: str) -> tuple[bytes, bytes]:
    return place[0], place[1].replace("{0}", text).replace("{}", text).encode()


KEY_HEADERS = st.builds(header, st.one_of(st.sampled_from(USUAL_PLACES), st.sampled_from(PLACES)), TEXTS)
USUAL_HEADERS = [[header(place, text.decode())] for place in USUAL_PLACES for text in (KEY, KEY, SCRAPE)]
OTHER_HEADERS = st.one_of(
    st.tuples(
        st.sampled_from([b"origin", b"access-control-request-method", b"x-forwarded-for", b"host"]),
        st.sampled_from([b"POST", b"GET", b"post", b"\xff", b"", b"127.0.0.1", b"https://a"]),
    ),
    st.tuples(
        st.one_of(st.sampled_from([b"authorization", b"x-api-key"]), st.binary(max_size=9)), st.binary(max_size=9)
    ),
)
PREFLIGHT = [(b"origin", b"https://a"), (b"access-control-request-method", b"POST")]


def request(kind: str, route: tuple[str, str], method: str | None, root: str, headers: Any, client: str | None) -> Any:
    return {
        "type": kind,
        "method": route[0] if method is None else method,
        "path": root + route[1],
        "root_path": root,
        "headers": headers,
        "client": None if client is None else (client, 1),
    }


REQUESTS = st.builds(
    request,
    st.sampled_from(["http"] * 10 + ["websocket", "webtransport"]),
    st.one_of(
        st.sampled_from([*LISTED, ("GET", "/health"), ("GET", "/metrics"), ("OPTIONS", "/v1/completions")]),
        st.sampled_from(ROUTES),
        st.sampled_from(NEAR_ROUTES),
        st.tuples(st.just("GET"), st.text(max_size=20)),
    ),
    st.sampled_from([None] * 8 + ["GET", "POST", "OPTIONS", "HEAD", "PUT", "WEBSOCKET", "get", "POST ", ""]),
    st.sampled_from([""] * 6 + ["/v1", "/health", "/below", "/", "/v1/models"]),
    st.one_of(
        st.sampled_from([*USUAL_HEADERS, PREFLIGHT]),
        st.lists(st.one_of(KEY_HEADERS, OTHER_HEADERS), max_size=3),
    ),
    st.sampled_from([*HERE, *ELSEWHERE, None]),
)


def asked(scope: dict[str, Any]) -> tuple[bool, list[Any]]:
    """Whether the application was reached, and what was said in its place; nothing there waits for anything."""
    reached, sent = [], []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    try:
        Guard(app, POLICY)(scope, receive, send).send(None)
    except StopIteration:
        return bool(reached), sent
    raise AssertionError("the guard waits for something")


NOTHING = asked({"type": "http", "method": "GET", "path": "/no/such/path", "headers": [], "client": None})[1]


def test_nothing_passes_but_a_listed_route_with_the_key() -> None:
    seen: Counter[str] = Counter()

    @settings(MANY, max_examples=8_000)
    @given(scope=REQUESTS)
    def cases(scope: dict[str, Any]) -> None:
        reached, sent = asked(scope)
        path, headers = looked_for(scope["path"], scope["root_path"]), scope["headers"]
        if reached:
            assert not sent
            assert may_pass(scope)
            seen["passed with the key" if says(headers, KEY) else "passed for another reason"] += 1
        elif scope["type"] == "websocket":
            assert sent == [{"type": "websocket.close", "code": 1008}]
            seen["websocket refused"] += 1
        elif sent[0]["status"] == 404:
            assert sent == NOTHING
            # Of a listed route no 404 is told, nor of one that is not listed anything else.
            assert scope["type"] != "http" or not is_listed(scope["method"], path)
            seen["404"] += 1
        else:
            assert sent[0]["status"] == 401
            assert is_listed(scope["method"], path)
            seen["401"] += 1
        if may_pass(scope) and says_nothing_else(headers):
            assert reached
            seen["clean"] += 1

    cases()
    # Every branch above was taken often, so that none of it holds for want of cases.
    assert len(seen) == 6, seen
    assert min(seen.values()) > 50, seen


def test_no_key_but_the_key_opens_a_listed_route() -> None:
    seen: Counter[bool] = Counter()

    @settings(MANY, max_examples=2_000)
    @given(
        headers=st.one_of(st.tuples(KEY_HEADERS), st.tuples(KEY_HEADERS, KEY_HEADERS)), route=st.sampled_from(LISTED)
    )
    def cases(headers: tuple[tuple[bytes, bytes], ...], route: tuple[str, str]) -> None:
        method, path = route
        scope = {"type": "http", "method": method, "path": path, "headers": headers, "client": (HERE[0], 1)}
        reached, sent = asked(scope)
        if reached:
            assert says(headers, KEY)
        else:
            assert sent[0]["status"] == 401
            assert not (says(headers, KEY) and says_nothing_else(headers))
        seen[reached] += 1

    cases()
    assert min(seen[True], seen[False]) > 200, seen
