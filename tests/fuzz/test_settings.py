"""Settings files with anything in them: settings or one error of ours comes out, and never a secret with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.fuzz.support import MANY, told
from vllmray.config.cluster_file import NOT_IN_THE_CLUSTER_FILE
from vllmray.config.cluster_settings import load_cluster
from vllmray.config.models import ClusterConfig
from vllmray.config.settings import COMPOSE_NAMES, load, variables_of
from vllmray.errors import ConfigError

SECRET = "PLANTED-secret-0123456789"
SECRET_VARIABLES = sorted(name for field in NOT_IN_THE_CLUSTER_FILE for name in variables_of(field))
NAMES = sorted({*COMPOSE_NAMES.values(), *(variables_of(field)[0] for field in ClusterConfig.model_fields)})
FIELDS = sorted(ClusterConfig.model_fields)
VALUES = [
    *("", "0", "1", "-1", "8000", "65536", "1e9", "inf", "nan", "9" * 400, "0x10", "1_000", "\N{SUPERSCRIPT TWO}"),
    *("16g", "75m", "1.5GiB", "9" * 400 + "g", "lots", "true", "no", "all", "auto", "default", "unlimited", "none"),
    *(
        "10.0.0.1",
        "::1",
        "127.0.0.1",
        "0.0.0.0",
        "10.0.0.1 ",
        "head.local",
        "/a:/b",
        "/a:/b:rw,/c:/d",
        "a:b",
        "2x80GiB",
    ),
    *("A=b", "A=b,C=d", "HF_TOKEN=x", "nonsense", "self-signed", "docker", "native", "cpu", "~nobody-there/x", "../x"),
    *(
        "some/model",
        "/model",
        "lab",
        "Lab",
        "a" * 300,
        "\N{FULLWIDTH DIGIT ONE}",
        "\0",
        "\x7f",
        "\N{RIGHT-TO-LEFT OVERRIDE}",
    ),
]
ANY_VALUE = st.one_of(st.sampled_from(VALUES), st.sampled_from(VALUES), st.text(max_size=12))


def words_of(read: Callable[[], object]) -> str:
    """What is said, when it is refused; nothing when it is taken. Any error but ours is the test's."""
    try:
        read()
    except ConfigError as error:
        return told(error)
    return ""


# .env

QUOTES = ["{}", "{}", '"{}"', "'{}'", '"{}', "'{}", '{}"', '"{}" # comment', "`{}`", '"{}\\', "${{{}}}", " {} "]


def line(prefix: str, name: str, separator: str, form: str, value: str) -> str:
    return prefix + name + separator + form.replace("{}", value)


PREFIXES = st.sampled_from(["", "", "", "", "export ", " ", "#", "\ufeff", "VLLMRAY_", "-"])
SEPARATORS = st.sampled_from(["=", "=", "=", " = ", "", ":", "=="])
FORMS = st.sampled_from(QUOTES)
GOOD = {
    "port": "8001",
    "max_model_len": "8192",
    "pipeline_parallel_size": "1",
    "head_ip": "10.0.0.1",
    "cluster": "lab",
    "model": "some/model",
    "gpus": "0,1",
    "shm_size": "20g",
    "memlock": "unlimited",
    "nofile": "65536",
    "env": "A=b,C=d",
    "volumes": "/a:/b:rw,/c:/d",
    "allow_routes": "/v1/rerank",
    "no_api_key": "true",
    "rdma": "1",
    "user": "1000:1000",
}
"""A value for each that is right."""
EXPRESSIONS = st.text(alphabet="$${{}}:-?+AB_ 1'\"\\", max_size=12)
ENV_LINES = st.one_of(
    st.sampled_from([f"{variables_of(name)[0]}={value}" for name, value in GOOD.items()]),
    st.builds(line, PREFIXES, st.sampled_from(NAMES), SEPARATORS, FORMS, ANY_VALUE),
    st.builds(line, st.just(""), st.sampled_from(SECRET_VARIABLES), st.just("="), FORMS, st.just(SECRET)),
    st.builds(line, PREFIXES, st.sampled_from(SECRET_VARIABLES), SEPARATORS, FORMS, st.just(SECRET)),
    st.sampled_from(["", "#", "=", "'", '"', "\\", "VLLMRAY_ENV=HF_TOKEN=" + SECRET, "VLLMRAY_NONSENSE=" + SECRET]),
    st.builds(line, st.just(""), st.sampled_from(NAMES), st.just("="), FORMS, EXPRESSIONS),
    st.text(max_size=20),
)
ENV_TEXTS = st.builds(
    lambda lines, end: end.join(lines), st.lists(ENV_LINES, max_size=4), st.sampled_from(["\n", "\r\n"])
)


def test_an_env_file_is_read_or_refused_and_no_secret_of_it_is_told(folder: Path) -> None:
    seen: Counter[str] = Counter()

    @settings(MANY, max_examples=2_500)
    @given(text=ENV_TEXTS)
    @example(text="VLLMRAY_SHM_SIZE=" + "9" * 400)
    @example(text=f'VLLMRAY_VOLUMES="/a:/b\nHF_TOKEN=\'{SECRET}\'\nMODEL_NAME="some/model"\n')
    @example(text=f"VLLMRAY_CLUSTER_GPUS='2x80GiB\nVLLM_API_KEY={SECRET}'\n")
    def cases(text: str) -> None:
        (folder / ".env").write_bytes(text.encode())
        words = words_of(lambda: load({}, environ={"A": SECRET, "B": ""}))
        assert SECRET not in words
        seen["refused" if words else "taken"] += 1
        seen["with a secret"] += SECRET in text

    cases()
    assert min(seen.values()) > 150, seen
    assert len(seen) == 3, seen


@settings(MANY, max_examples=500)
@given(
    content=st.one_of(
        st.binary(max_size=60), st.binary(max_size=9).map(lambda end: f"HF_TOKEN={SECRET}\n".encode() + end)
    )
)
def test_bytes_that_are_no_text_are_refused_as_an_env_file_and_as_a_cluster_file(folder: Path, content: bytes) -> None:
    for name in (".env", "vllmray.toml"):
        (folder / name).write_bytes(content)
        assert SECRET not in words_of(lambda: load({}, environ={}))
        (folder / name).unlink()


# vllmray.toml

TOML_FORMS = [
    '"{}"',
    "'{}'",
    '"""{}"""',
    '["{}"]',
    '["{}", "{}"]',
    "{}",
    "[{}]",
    '{{ build = "{}" }}',
    '"{}',
    '"""{}',
    "'''{}",
]
TOML_FORMS += ["[[{}]]", "{{ gcs = {} }}", "true", "1979-05-27", "07:32:00", "[1, [2]]", "0.5", "{{}}", "1e400", "-0"]


def entry(name: str, separator: str, form: str, value: str) -> str:
    return name + separator + form.replace("{{", "{").replace("}}", "}").replace("{}", value)


TOML_NAMES = st.one_of(
    st.sampled_from(FIELDS),
    st.sampled_from(
        ["ray_ports.gcs", "image.build", "build.pip", '"port"', "''", "a.b", "[ray_ports]", "[[env]]", "[build]"]
    ),
)
TOML_SEPARATORS = st.sampled_from([" = ", " = ", " = ", " = ", "=", " ", "\n"])
TOML_LINES = st.one_of(
    st.sampled_from([f'{name} = "{value}"' for name, value in GOOD.items()]),
    st.sampled_from(
        ["port = 9000", "rdma = true", 'env = ["A=b"]', "[ray_ports]\ngcs = 6400", "image = { build = true }"]
    ),
    st.sampled_from(["", f"# {SECRET}", f'env = ["MINE={SECRET}"]']),
    st.builds(entry, TOML_NAMES, TOML_SEPARATORS, st.sampled_from(TOML_FORMS), ANY_VALUE),
    st.builds(entry, TOML_NAMES, st.just(" = "), st.sampled_from(TOML_FORMS[:5]), st.sampled_from(VALUES)),
    st.builds(
        entry,
        st.sampled_from(NOT_IN_THE_CLUSTER_FILE),
        TOML_SEPARATORS,
        st.sampled_from(TOML_FORMS[:6] + TOML_FORMS[8:11]),
        st.just(SECRET),
    ),
    st.sampled_from([f'env = ["HF_TOKEN={SECRET}"]', f'env = ["HF TOKEN={SECRET}"]', '"""', "'''", "]", "#", ""]),
    st.text(max_size=20),
)
TOML_TEXTS = st.builds("\n".join, st.lists(TOML_LINES, max_size=3))


def test_a_cluster_file_is_read_or_refused_and_no_secret_of_it_is_told(folder: Path) -> None:
    seen: Counter[str] = Counter()

    @settings(MANY, max_examples=2_500)
    @given(text=TOML_TEXTS)
    @example(text="volumes = " + "[" * 500)
    @example(text='model_cache_dir = "~nobody-there/x"')
    @example(text=f'volumes = ["/a:/b", """/c:/d\napi_key = "{SECRET}"\n"""]\n')
    @example(text='shm_size = "' + "9" * 400 + '"')
    def cases(text: str) -> None:
        (folder / "vllmray.toml").write_bytes(text.encode())
        words = words_of(lambda: load({}, environ={}))
        assert SECRET not in words
        seen["refused" if words else "taken"] += 1
        seen["with a secret"] += SECRET in text

    cases()
    assert min(seen.values()) > 100, seen
    assert len(seen) == 3, seen


TABLES = st.sampled_from(
    ["[cluster]", "[defaults]", "[[hosts]]", '[[hosts]]\naddress = "gpu1"', "[[hosts]]\naddress = 3"]
)
OF_TABLES = st.one_of(
    TABLES,
    TABLES,
    TOML_LINES,
    st.sampled_from(
        [
            *(
                'address = "gpu2"',
                'role = "head"',
                'role = "worker"',
                'layout = "TP 2, PP 2"',
                "layout = 1",
                "version = 1",
            ),
            *('share = ["image"]', 'share = "x"', 'env = { A = "1", B = true }', 'env = "A=1"', 'model_cache = "m"'),
            f'env = {{ HF_TOKEN = "{SECRET}" }}',
        ]
    ),
)


def test_a_cluster_file_with_hosts_is_read_or_refused_and_no_secret_of_it_is_told(folder: Path) -> None:
    seen: Counter[str] = Counter()

    @settings(MANY, max_examples=2_000)
    @given(lines=st.lists(OF_TABLES, max_size=6))
    def cases(lines: list[str]) -> None:
        text = "\n".join(lines)
        (folder / "vllmray.toml").write_bytes(text.encode())
        words = words_of(lambda: load_cluster({}, environ={}))
        assert SECRET not in words
        seen["refused" if words else "taken"] += 1
        seen["with hosts"] += "[[hosts]]" in text

    cases()
    assert min(seen.values()) > 100, seen
    assert len(seen) == 3, seen
