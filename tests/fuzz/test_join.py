"""Joining a cluster: command lines and token files with anything in them, and the line that a head prints for it."""

from __future__ import annotations

import io
import json
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.fuzz.support import MANY, told
from tests.fuzz.test_settings import VALUES
from tests.unit.support import config
from vllmray.cli.main import run
from vllmray.cli.options import SWITCHES, option_fields
from vllmray.cluster.spec.commands import TOKEN_FILE, worker_command
from vllmray.cluster.spec.labels import CONFIG
from vllmray.config.settings import COMPOSE_NAMES, flag_of
from vllmray.errors import ConfigError
from vllmray.secrets.resolve import of_worker, stated_keys
from vllmray.secrets.store import SecretStore

TOKEN = "PLANTED-token-0123456789"


@pytest.fixture
def joining(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a token file, on a machine where this user has nothing."""
    for name in ("HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(folder / "home"))
    for name in (*COMPOSE_NAMES.values(), "DOCKER_HOST"):
        monkeypatch.delenv(name, raising=False)
    (folder / TOKEN_FILE).write_text(TOKEN + "\n")
    (folder / TOKEN_FILE).chmod(0o600)
    (folder / "readable").write_text(TOKEN + "\n")
    (folder / "readable").chmod(0o644)
    return folder


def typed(argv: Sequence[str]) -> tuple[int, str, str]:
    """A command line through the whole program: its exit code, and what it wrote."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as caught:
        run(argv)
    assert isinstance(caught.value.code, int)
    return caught.value.code, out.getvalue(), err.getvalue()


# Command lines.

FLAGS = [
    *(flag_of(name) for name in option_fields()),
    *(
        "--host",
        "--env-file",
        "--no-wait",
        "--recreate",
        "--retain",
        "--no-derive",
        "--no-model-check",
        "--",
        "--debug",
    ),
    *("--hf-token", "--ray-token", "--api-key", "--nonsense", "-x", "-", "up", "--dry-run=no", "--head-ip="),
]
ALONE = {
    *(flag_of(name) for name in SWITCHES),
    "--no-wait",
    "--recreate",
    "--retain",
    "--no-derive",
    "--no-model-check",
}
WORDS = [
    *VALUES,
    *(TOKEN_FILE, "readable", "missing", ".", "/", "/dev/null", "~", "~nobody-there/x", "-", "--", "head", "worker"),
    *("gcs=6400", "gcs=", "=", "nonsense=1", "gcs=6400=1", "ssh://host", "tcp://10.0.0.9:2375", "unix:///x", "ssh://["),
    *("device=0,1", "GPU-a,GPU-b", "eth0", "0:0", "1000:1000", "/python", "http://x", "$(id)", "`id`", "a b", "'", '"'),
]


def given_option(flag: str, value: str, *, joined: bool) -> list[str]:
    if flag in ALONE:
        return [flag]
    return [f"{flag}={value}"] if joined else [flag, value]


OPTIONS = st.builds(
    given_option,
    st.sampled_from(FLAGS),
    st.one_of(st.sampled_from(WORDS), st.sampled_from(WORDS), st.text(max_size=10)),
    joined=st.booleans(),
)
USUAL = ["--head-ip", "10.0.0.1", "--token-file", TOKEN_FILE]
COMMON = st.sampled_from([*[USUAL] * 5, USUAL[2:], *[USUAL[:2]] * 2, []])


def test_any_command_line_of_a_worker_is_a_plan_or_an_error_of_ours(joining: Path) -> None:
    seen: Counter[int] = Counter()

    @settings(MANY, max_examples=400)
    @given(first=st.sampled_from([["up"], ["--debug", "up"]]), common=COMMON, options=st.lists(OPTIONS, max_size=2))
    @example(first=["up"], common=USUAL, options=[["--token-file", "~nobody-there/x"]])
    @example(first=["up"], common=USUAL, options=[["--token-file", f"{TOKEN_FILE}\0"]])
    @example(first=["up"], common=USUAL, options=[["--shm-size", "9" * 400]])
    @example(first=["up"], common=USUAL, options=[["--model-cache-dir", "~nobody-there/x"]])
    def cases(first: list[str], common: list[str], options: list[list[str]]) -> None:
        argv = [
            *first,
            "--dry-run=commands",
            "--role",
            "worker",
            *common,
            *(word for option in options for word in option),
        ]
        code, out, err = typed(argv)
        assert code in (0, 2, 3, 4), err
        assert TOKEN not in out + err
        assert ("vllmray-worker" in out or "ray start" in out) if code == 0 else "error" in err.lower()
        seen[code] += 1

    cases()
    assert min(seen[0], seen[2], seen[3]) > 5, seen
    assert sorted(path.name for path in joining.iterdir()) == ["readable", TOKEN_FILE]  # and nothing is left of it


# The line that a head prints.

SETTINGS: dict[str, st.SearchStrategy[Any]] = {
    "cluster": st.sampled_from(["vllmray", "lab", "a-1"]),
    "image": st.sampled_from(["image:1", "registry:5000/a/b@sha256:0", "$(id)", "a b", "'"]),
    "model": st.sampled_from(["some/model", "/models/smol", "/models/with space", "/models/it's"]),
    "accelerator": st.sampled_from(["nvidia", "amd", "cpu"]),
    "shm_size": st.integers(2**30, 2**40),
    "object_store_memory": st.integers(2**27, 2**30),
    "memlock": st.sampled_from([None, -1, 2**20]),
    "nofile": st.sampled_from([None, 1024, 1048576]),
    "rdma": st.booleans(),
    "writable_root": st.booleans(),
    "ray_metrics": st.booleans(),
    "volumes": st.lists(st.sampled_from(["/a:/b", "/a b:/c:rw", "/it's:/d", "/a,b:/e"]), max_size=2).map(tuple),
    "env": st.lists(
        st.builds("{}={}".format, st.sampled_from(["A", "B_1"]), st.text("ab $'\"`\\=,-\n\N{SNOWMAN}", max_size=9)),
        max_size=2,
    ).map(tuple),
    "ray_ports": st.fixed_dictionaries({}, optional={"gcs": st.just(6400), "dashboard": st.just(8300)}),
}
NODE_FIELDS = [name for name in SETTINGS if name not in ("model", "ray_ports")]


@settings(MANY, max_examples=200)
@given(fields=st.fixed_dictionaries({}, optional=SETTINGS))
def test_the_line_that_a_head_prints_gives_a_worker_the_same_settings(joining: Path, fields: dict[str, Any]) -> None:
    head = config(**({"accelerator": "nvidia"} | fields | {"head_ip": "10.0.0.1", "node_ip": "10.0.0.1"}))
    program, *argv = shlex.split(worker_command(head))
    assert program == "vllmray"
    code, out, err = typed([*argv, "--dry-run=commands", "--runtime", "docker"])
    assert code == 0, err
    words = shlex.split(out, comments=True)
    label = next(word for word in words if word.startswith(f"{CONFIG}="))
    got = json.loads(label.partition("=")[2])
    wanted = json.loads(head.model_dump_json())
    assert {name: got[name] for name in NODE_FIELDS if name in got} == {
        name: wanted[name] for name in NODE_FIELDS if name in got
    }
    assert got["ray_ports"] == wanted["ray_ports"]
    assert got["head_ip"] == "10.0.0.1"
    assert len([name for name in NODE_FIELDS if name in got]) >= 10


# Token files.

SPECIAL = [
    b"",
    b"\n",
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b" ",
    b"\r\n",
    b"\t",
    b"\x85",
    b"\xc2\xa0",
    b"\xe2\x80\xa8",
    b"x",
    b"#",
]
CONTENTS = st.one_of(
    st.builds(
        lambda before, cut, after: before + TOKEN.encode()[:cut] + after,
        st.sampled_from(SPECIAL),
        st.sampled_from([24, 24, 24, 16, 15, 1]),
        st.one_of(st.sampled_from(SPECIAL), st.binary(max_size=20)),
    ),
    st.lists(st.sampled_from([*SPECIAL, TOKEN.encode()]), max_size=5).map(b"".join),
    st.binary(max_size=40),
)


def test_a_token_file_holds_one_token_or_is_refused_without_a_word_of_it(joining: Path) -> None:
    seen: Counter[str] = Counter()
    store = SecretStore(joining / "home" / "vllmray", "vllmray")

    def token(name: str) -> str | None:
        settled = of_worker(config(head_ip="10.0.0.1", token_file=name), store)
        return settled.ray_token.get_secret_value() if settled.ray_token else None

    def keys(name: str) -> str | None:
        return stated_keys(config(api_key_file=name))

    @settings(MANY, max_examples=1_500)
    @given(content=CONTENTS, read=st.sampled_from([token, keys]))
    def cases(content: bytes, read: Callable[[str], str | None]) -> None:
        (joining / TOKEN_FILE).write_bytes(content)
        try:
            taken = str(read(str(joining / TOKEN_FILE)))
        except ConfigError as error:
            words = told(error)
            seen["refused"] += 1
        else:
            # What is taken is in the file as it is, in one piece a line, and nothing else is.
            words = ""
            assert taken.split("\n") == content.decode().split()
            assert all("!" <= letter <= "~" for letter in taken.replace("\n", ""))
            seen["taken"] += 1
        assert TOKEN[:10] not in words

    cases()
    assert min(seen["taken"], seen["refused"]) > 100, seen
    assert store.get("ray_token") is None


def test_the_plan_of_a_worker_names_the_token_file_that_it_was_given(joining: Path) -> None:
    code, out, _ = typed(["up", "--dry-run=commands", "--runtime", "docker", "--role", "worker", *USUAL])
    assert code == 0
    assert f"{joining / TOKEN_FILE}:/vllmray/secrets/ray_token:ro" in shlex.split(out, comments=True)
