"""Models read from a real small hub on loopback through huggingface_hub, and from the cache that it makes."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from pydantic import SecretStr

from tests.rig.hub import COMMIT, FakeHub, Model, index, safetensors, serving
from vllmray.errors import ConfigError
from vllmray.hub import network
from vllmray.hub.files import HubUnreachableError, ModelFiles
from vllmray.hub.read import read_model

CONFIG = b'{"model_type": "llama", "num_attention_heads": 32}'
NAME = "org/model"
TOKEN = "hf_aSecretThatNobodyMaySee"
WEIGHTS = safetensors(a=(7, 2))
GIB = 1024**3


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever this machine's proxies are, they don't lead to loopback."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    huggingface_hub.close_session()
    yield
    huggingface_hub.close_session()


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with serving() as running:
        running.models[NAME] = Model({"config.json": CONFIG, "model.safetensors": WEIGHTS})
        yield running


def read(
    hub: FakeHub,
    cache: Path,
    model: str = NAME,
    *,
    token: str | None = None,
    revision: str | None = None,
    login: str | None = None,
    **env: str,
) -> ModelFiles:
    found = read_model(
        model,
        token=SecretStr(token) if token is not None else None,
        cache=cache,
        environment={"HF_ENDPOINT": hub.url} | env,
        revision=revision,
        modelscope_token=SecretStr(login) if login is not None else None,
    )
    assert found is not None
    return found


def refusal(hub: FakeHub, cache: Path, model: str = NAME, **how: Any) -> ConfigError:
    """The error, which has a hint and no token in it."""
    with pytest.raises(ConfigError) as caught:
        read(hub, cache, model, **how)
    error = caught.value
    assert error.hint
    assert TOKEN not in f"{error.message}{error.details}{error.hint}"
    assert error.__cause__ is None, "a traceback would show the library's words"
    return error


def fill(hub: FakeHub, cache: Path, *, without: str | None = None) -> Path:
    """Let the library itself download the model, as a node does; gives the snapshot."""
    return Path(
        huggingface_hub.snapshot_download(
            NAME, endpoint=hub.url, cache_dir=cache / "hub", token=False, ignore_patterns=without
        )
    )


def in_a_process(
    model: str, cache: Path, environment: Mapping[str, str], settings: Mapping[str, str]
) -> dict[str, Any]:
    """Read it in a fresh interpreter with that environment of its own; what it found, raised, loaded and printed."""
    code = """
import json, sys
from pathlib import Path
from vllmray.errors import VllmrayError
from vllmray.hub.read import read_model
try:
    found = read_model(sys.argv[1], token=None, cache=Path(sys.argv[2]), environment=json.loads(sys.argv[3]))
    answer = {"bytes": found.weight_bytes, "where": found.where}
except VllmrayError as error:
    answer = {"error": f"{error.message} {error.details} {error.hint}"}
print(json.dumps(answer | {"loaded": sorted({name.partition(".")[0] for name in sys.modules})}))
"""
    argv = [sys.executable, "-c", code, model, str(cache), json.dumps(dict(settings))]
    base = {"PATH": "/usr/bin:/bin", "HOME": str(cache)}
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env={**base, **environment})
    assert done.stderr == ""
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_the_rig_is_a_hub_to_the_library_itself(hub: FakeHub, tmp_path: Path) -> None:
    hub.models["org/gated"] = Model({"config.json": CONFIG}, gated=True)
    api = huggingface_hub.HfApi(endpoint=hub.url, token=False)
    info = api.model_info(NAME, files_metadata=True)
    assert {file.rfilename: file.size for file in info.siblings or ()}["model.safetensors"] == len(WEIGHTS)
    assert (fill(hub, tmp_path) / "config.json").read_bytes() == CONFIG
    with pytest.raises(huggingface_hub.errors.GatedRepoError):
        huggingface_hub.hf_hub_download("org/gated", "config.json", endpoint=hub.url, cache_dir=tmp_path, token=False)
    with pytest.raises(huggingface_hub.errors.RepositoryNotFoundError):
        api.model_info("org/none")
    with pytest.raises(huggingface_hub.errors.RevisionNotFoundError):
        api.model_info(NAME, revision="none")


def test_a_model_of_the_hub_is_its_config_and_the_size_of_its_weights(hub: FakeHub, tmp_path: Path) -> None:
    found = read(hub, tmp_path)
    assert found.config == json.loads(CONFIG)
    assert (found.model, found.weight_bytes, found.weights) == (NAME, len(WEIGHTS), "safetensors")
    assert found.where == f"hub {hub.url.removeprefix('http://')}"


def test_no_weights_are_fetched_and_nothing_is_written(hub: FakeHub, tmp_path: Path) -> None:
    read(hub, tmp_path)
    assert hub.paths == [f"/api/models/{NAME}/revision/main?blobs=true", f"/{NAME}/resolve/{COMMIT}/config.json"]
    assert list(tmp_path.iterdir()) == []


def test_a_quantisation_in_a_file_of_its_own_is_fetched_where_the_config_has_none(hub: FakeHub, tmp_path: Path) -> None:
    apart = json.dumps({"quantization": {"quant_algo": "NVFP4"}}).encode()
    files = {**hub.models[NAME].files, "hf_quant_config.json": apart}
    hub.models[NAME] = Model(files)
    assert read(hub, tmp_path).config["quantization_config"]["quant_method"] == "modelopt_fp4"
    assert len(hub.seen) == 3
    hub.models[NAME] = Model({**files, "config.json": b'{"quantization_config": {"quant_method": "fp8"}}'})
    assert read(hub, tmp_path).config["quantization_config"]["quant_method"] == "fp8"
    assert len(hub.seen) == 5


def test_shards_that_count_to_their_end_need_no_index(hub: FakeHub, tmp_path: Path) -> None:
    sizes = {f"model-0000{part}-of-00003.safetensors": GIB for part in (1, 2, 3)}
    sizes |= {"consolidated.safetensors": 3 * GIB, "original/model.safetensors": GIB, "tokenizer.json": 5}
    hub.models[NAME] = Model({"config.json": CONFIG, "model.safetensors.index.json": b"not asked for"}, sizes)
    assert read(hub, tmp_path).weight_bytes == 3 * GIB
    assert len(hub.seen) == 2


def test_the_index_says_which_files_hold_the_weights_when_names_leave_a_doubt(hub: FakeHub, tmp_path: Path) -> None:
    sizes = {"model-00001-of-00001.safetensors": GIB, "mtp.safetensors": 7, "model.fp32.safetensors": 2 * GIB}
    files = {"config.json": CONFIG}
    files["model.safetensors.index.json"] = index(a="model-00001-of-00001.safetensors", b="mtp.safetensors")
    hub.models[NAME] = Model(files, sizes)
    assert read(hub, tmp_path).weight_bytes == GIB + 7
    hub.models[NAME] = Model(files, {"mtp.safetensors": 7})
    assert "1 of its 2 weight files are missing" in refusal_of_content(hub, tmp_path).message


@pytest.mark.parametrize(
    ("files", "weights"),
    [({"pytorch_model.bin": b"?"}, "other"), ({"model.gguf": b"?"}, "other"), ({"tokenizer.json": b"?"}, "none")],
)
def test_weights_in_other_formats_have_no_size(
    hub: FakeHub, tmp_path: Path, files: dict[str, bytes], weights: str
) -> None:
    hub.models[NAME] = Model({"config.json": CONFIG} | files)
    found = read(hub, tmp_path)
    assert (found.weight_bytes, found.weights) == (None, weights)


def refusal_of_content(hub: FakeHub, cache: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read(hub, cache)
    assert caught.value.message.startswith(f"{NAME} (hub 127.0.0.1:")
    return caught.value


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"model-Q4_K_M.gguf": b"?"}, "there is no config.json, only GGUF files"),
        ({"adapter_config.json": b"{}"}, "it is a LoRA adapter"),
        ({"README.md": b""}, "there is no config.json"),
        ({"config.json": CONFIG[:-9]}, "config.json is not valid JSON, or is cut off"),
        ({"config.json": b"\xff\xfe{}"}, "config.json is not UTF-8 text"),
        ({"config.json": b"[]"}, "config.json is not a JSON object"),
    ],
)
def test_a_repository_without_a_config_to_read_says_what_it_is(
    hub: FakeHub, tmp_path: Path, files: dict[str, bytes], said: str
) -> None:
    hub.models[NAME] = Model(files)
    error = refusal_of_content(hub, tmp_path)
    assert said in error.message
    assert "--no-model-check" in str(error.hint)


def test_a_config_of_absurd_size_is_not_fetched(hub: FakeHub, tmp_path: Path) -> None:
    hub.models[NAME] = Model({}, {"config.json": GIB})
    assert "config.json is larger than 64 MiB" in refusal_of_content(hub, tmp_path).message
    assert len(hub.seen) == 1


def test_the_token_of_the_nodes_is_sent_and_opens_what_is_private(hub: FakeHub, tmp_path: Path) -> None:
    hub.models[NAME] = Model({"config.json": CONFIG}, private=True, gated=True)
    hub.tokens[TOKEN] = (NAME,)
    assert read(hub, tmp_path, token=TOKEN).config == json.loads(CONFIG)
    assert {request.authorization for request in hub.seen} == {f"Bearer {TOKEN}"}
    assert all(request.agent.startswith("vllmray/") for request in hub.seen)


def test_the_token_does_not_follow_a_file_to_another_place(hub: FakeHub, tmp_path: Path) -> None:
    hub.tokens[TOKEN] = ()
    with serving() as elsewhere:
        elsewhere.page = CONFIG
        hub.files_at = elsewhere.url
        assert read(hub, tmp_path, token=TOKEN).config == json.loads(CONFIG)
        assert [request.authorization for request in elsewhere.seen] == [None]


def test_without_a_token_the_users_own_login_is_not_used(hub: FakeHub, tmp_path: Path) -> None:
    login = tmp_path / "token"
    login.write_text("hf_mine")
    own = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_mine", "HF_TOKEN_PATH": str(login), "NO_PROXY": "127.0.0.1"}
    answer = in_a_process(NAME, tmp_path, own, {})
    assert answer["bytes"] == len(WEIGHTS)
    assert [request.authorization for request in hub.seen] == [None, None]


def test_the_nodes_endpoint_goes_before_that_of_this_process(hub: FakeHub, tmp_path: Path) -> None:
    own = {"HF_ENDPOINT": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}
    assert in_a_process(NAME, tmp_path, own, {"HF_ENDPOINT": hub.url + "/"})["bytes"] == len(WEIGHTS)


def test_a_gated_model_names_the_page_where_access_is_asked_for(hub: FakeHub, tmp_path: Path) -> None:
    hub.models[NAME] = Model({"config.json": CONFIG}, gated=True)
    hub.tokens[TOKEN] = ()
    without, denied = refusal(hub, tmp_path), refusal(hub, tmp_path, token=TOKEN)
    assert "gated" in without.message
    assert "HF_TOKEN is not set" in without.message
    assert "set HF_TOKEN" in str(without.hint)
    assert "the token's owner has no access" in denied.message
    for error in (without, denied):
        assert f"https://huggingface.co/{NAME}" in str(error.hint)


def test_a_model_that_is_not_found_may_be_misspelt_or_private(hub: FakeHub, tmp_path: Path) -> None:
    hub.models[NAME] = Model({"config.json": CONFIG}, private=True)
    hub.tokens[TOKEN] = ()
    for model in (NAME, "org/none", "none"):
        assert "it is private and HF_TOKEN is not set" in refusal(hub, tmp_path, model).message
        assert "the token may not see it" in refusal(hub, tmp_path, model, token=TOKEN).message
        assert "spelling" in str(refusal(hub, tmp_path, model).hint)


def test_a_token_that_the_hub_does_not_know_is_said_to_be_that(hub: FakeHub, tmp_path: Path) -> None:
    error = refusal(hub, tmp_path, token=TOKEN)
    assert "does not accept the token" in error.message
    assert "huggingface.co/settings/tokens" in str(error.hint)


@pytest.mark.parametrize("token", [f"{TOKEN}\nX-Other: 1", f"{TOKEN}\N{EURO SIGN}", f"Bearer {TOKEN}"])
def test_a_token_that_can_not_be_sent_is_refused_without_showing_it(hub: FakeHub, tmp_path: Path, token: str) -> None:
    assert "the Hugging Face token has invalid characters" in refusal(hub, tmp_path, token=token).message
    assert hub.seen == []


def test_a_token_of_spaces_is_none(hub: FakeHub, tmp_path: Path) -> None:
    assert read(hub, tmp_path, token=" \n").weight_bytes
    assert hub.seen[0].authorization is None


def test_a_revision_is_read_and_one_that_is_not_there_is_named(hub: FakeHub, tmp_path: Path) -> None:
    hub.models[NAME] = Model({"config.json": CONFIG}, revisions=("main", "refs/pr/1"))
    assert read(hub, tmp_path, revision="refs/pr/1").config
    error = refusal(hub, tmp_path, revision="v9")
    assert error.message == f"{NAME} has no revision v9"
    assert f"https://huggingface.co/{NAME}/tree/main" in str(error.hint)


@pytest.mark.parametrize(
    "model",
    ["org/name/x", "./name", "org/", "a--b", "a..b", "x.git", "s3://bucket/x", "https://huggingface.co/a/b", "-x", ""],
)
def test_what_is_no_id_is_refused_before_anything_is_asked(hub: FakeHub, tmp_path: Path, model: str) -> None:
    assert refusal(hub, tmp_path, model).message == f"invalid model id {model!r}"
    assert hub.seen == []


def test_a_gateway_that_fails_once_is_asked_again_and_one_that_stays_broken_is_named(
    hub: FakeHub, tmp_path: Path
) -> None:
    hub.failures = [502]
    assert read(hub, tmp_path).weight_bytes
    hub.failures = [503, 503]
    assert "answered HTTP 503" in refusal(hub, tmp_path).message
    hub.failures = [429]
    assert "answered HTTP 429" in refusal(hub, tmp_path).message


def test_a_page_that_answers_in_the_hubs_place_is_not_taken_for_it(hub: FakeHub, tmp_path: Path) -> None:
    for page in (b"<html>Please log in</html>", b"[]", b"{}", b'{"sha": "x", "siblings": 3}'):
        hub.page = page
        error = refusal(hub, tmp_path)
        assert isinstance(error, HubUnreachableError)
        assert "does not answer like a Hugging Face hub" in error.message


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_hub_that_is_not_there_is_an_error_that_says_why(hub: FakeHub, tmp_path: Path) -> None:
    port = unused_port()
    for url, said in (
        (f"http://127.0.0.1:{port}", f"cannot reach hub 127.0.0.1:{port}: connection refused"),
        ("http://hub.invalid", "cannot reach hub hub.invalid: DNS lookup failed"),
        (hub.url.replace("http:", "https:"), "TLS failed"),
        (f"http://me:{TOKEN}@127.0.0.1:{port}", f"cannot reach hub 127.0.0.1:{port}"),
    ):
        error = refusal(hub, tmp_path, HF_ENDPOINT=url)
        assert isinstance(error, HubUnreachableError)
        assert said in error.message
        for way in ("HTTPS_PROXY", f"hf download {NAME}", "HF_ENDPOINT", "--no-model-check"):
            assert way in str(error.hint)


@pytest.mark.parametrize("url", ["hub.example", "ftp://hub", "http://", "http://x:port", "http://[::1"])
def test_an_endpoint_that_is_no_url_is_named(hub: FakeHub, tmp_path: Path, url: str) -> None:
    assert refusal(hub, tmp_path, HF_ENDPOINT=url).message == "HF_ENDPOINT is not a URL"


def test_a_proxy_that_is_not_there_is_named_without_its_password(hub: FakeHub, tmp_path: Path) -> None:
    port = unused_port()
    own = {"HF_ENDPOINT": hub.url, "http_proxy": f"http://me:{TOKEN}@127.0.0.1:{port}"}
    answer = in_a_process(NAME, tmp_path, own, {})
    assert f"through the proxy 127.0.0.1:{port}: connection refused" in answer["error"]
    assert TOKEN not in answer["error"]
    assert in_a_process(NAME, tmp_path, own | {"no_proxy": "127.0.0.1"}, {})["bytes"] == len(WEIGHTS)


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", f"nonsense://me:{TOKEN}@127.0.0.1:9"])
def test_a_proxy_that_the_library_can_not_use_is_an_error_too(hub: FakeHub, tmp_path: Path, proxy: str) -> None:
    answer = in_a_process(NAME, tmp_path, {"HF_ENDPOINT": hub.url, "http_proxy": proxy}, {})
    assert "through the proxy 127.0.0.1:9: " in answer["error"]
    assert TOKEN not in answer["error"]


def test_a_hub_that_hangs_is_given_up_after_ten_seconds(hub: FakeHub, tmp_path: Path) -> None:
    hub.hanging = True
    began = time.monotonic()
    assert "timed out" in refusal(hub, tmp_path).message
    assert network.REQUEST_S - 1 < time.monotonic() - began < network.REQUEST_S + 5


def test_a_question_is_given_up_whatever_keeps_it() -> None:
    never = threading.Event()
    with pytest.raises(TimeoutError):
        network.within(0.05, never.wait)
    never.set()


def test_offline_nothing_is_asked(hub: FakeHub, tmp_path: Path) -> None:
    error = refusal(hub, tmp_path, HF_HUB_OFFLINE="1")
    own = in_a_process(NAME, tmp_path, {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "yes"}, {})
    for said in (error.message, own["error"]):
        assert f"{NAME} is not in the model cache of this machine, and HF_HUB_OFFLINE is set" in said
    assert hub.seen == []


def test_a_model_that_is_whole_in_the_cache_is_read_without_network_or_library(hub: FakeHub, tmp_path: Path) -> None:
    snapshot = fill(hub, tmp_path)
    hub.seen.clear()
    for revision in (None, "main", COMMIT):
        found = read(hub, tmp_path, revision=revision)
        assert (found.where, found.weight_bytes) == (f"cache {snapshot}", len(WEIGHTS) - header_bytes(WEIGHTS))
    assert hub.seen == []
    answer = in_a_process(NAME, tmp_path, {}, {})
    assert answer["where"] == f"cache {snapshot}"
    assert not {"huggingface_hub", "httpx", "httpx2", "requests", "pydantic"}.intersection(answer["loaded"])


def header_bytes(file: bytes) -> int:
    return 8 + int.from_bytes(file[:8], "little")


def test_a_folder_is_read_without_the_library(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(CONFIG)
    (tmp_path / "model.safetensors").write_bytes(WEIGHTS)
    answer = in_a_process(str(tmp_path), tmp_path, {}, {})
    assert answer["bytes"] == 28
    assert not {"huggingface_hub", "httpx", "httpx2", "requests", "pydantic"}.intersection(answer["loaded"])


def test_another_revision_than_the_cached_one_is_asked_for(hub: FakeHub, tmp_path: Path) -> None:
    fill(hub, tmp_path)
    hub.models[NAME] = Model({"config.json": b'{"new": true}'}, revisions=("main", "v2"))
    assert read(hub, tmp_path, revision="v2").config == {"new": True}


@pytest.mark.parametrize("lacking", ["*.safetensors", "model-00002*"])
def test_weights_that_the_cache_lacks_are_asked_of_the_hub_and_done_without_when_it_is_away(
    hub: FakeHub, tmp_path: Path, lacking: str
) -> None:
    shards = {f"model-0000{part}-of-00002.safetensors": WEIGHTS for part in (1, 2)}
    hub.models[NAME] = Model({"config.json": CONFIG, **shards})
    snapshot = fill(hub, tmp_path, without=lacking)
    assert read(hub, tmp_path).weight_bytes == 2 * len(WEIGHTS)
    for away in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": f"http://127.0.0.1:{unused_port()}"}):
        found = read(hub, tmp_path, **away)
        assert (found.where, found.weight_bytes) == (f"cache {snapshot}", None)
        assert found.weights == ("unknown" if lacking == "*.safetensors" else "safetensors")


def test_weights_that_the_nodes_could_not_fetch_are_an_error_though_the_config_is_cached(
    hub: FakeHub, tmp_path: Path
) -> None:
    fill(hub, tmp_path, without="*.safetensors")
    hub.models[NAME] = Model({"config.json": CONFIG}, gated=True)
    assert "gated" in refusal(hub, tmp_path).message


def test_a_damaged_cache_names_its_folder_and_how_to_be_rid_of_it(hub: FakeHub, tmp_path: Path) -> None:
    snapshot = fill(hub, tmp_path)
    (snapshot / "config.json").resolve().write_bytes(CONFIG[:-3])
    error = refusal_in_the_cache(hub, tmp_path)
    assert f"{NAME} (cache {snapshot}): config.json is not valid JSON" in error.message
    assert f"rm -r {snapshot.parent.parent}" in str(error.hint)
    assert snapshot.parent.parent.name == "models--org--model"


def refusal_in_the_cache(hub: FakeHub, cache: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read(hub, cache)
    return caught.value


@pytest.mark.parametrize("ref", [b"", b"not a commit", b"../../../etc", b"\xff\xfe", COMMIT.encode()])
def test_a_cache_that_makes_no_sense_is_as_none(hub: FakeHub, tmp_path: Path, ref: bytes) -> None:
    repository = fill(hub, tmp_path).parent.parent
    shutil.rmtree(repository / "snapshots")
    (repository / "refs" / "main").write_bytes(ref)
    for revision in (None, COMMIT):
        assert read(hub, tmp_path, revision=revision).where.startswith("hub ")


def test_a_revision_that_is_no_files_name_is_no_more_than_unknown(hub: FakeHub, tmp_path: Path) -> None:
    fill(hub, tmp_path)
    for revision in ("../../x", "/etc/passwd", "x\0y", "x" * 300):
        assert "has no revision" in refusal(hub, tmp_path, revision=revision).message


def test_modelscope_without_its_package_says_how_to_get_it(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "modelscope", None)  # Python's own mark of what can't be imported
    for switch in ("1", "True "):
        with pytest.raises(ConfigError, match="reads ModelScope is not installed") as caught:
            read(hub, tmp_path, VLLM_USE_MODELSCOPE=switch)
        assert "pip install 'vllmray[modelscope]'" in str(caught.value.hint)
    assert read(hub, tmp_path, VLLM_USE_MODELSCOPE="0").weight_bytes == len(WEIGHTS)


@pytest.fixture
def modelscope(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The nodes' variables for this hub; the package keeps a number of its own below the user's home."""
    monkeypatch.setenv("MODELSCOPE_HOME", str(tmp_path / "home"))
    pytest.importorskip("modelscope.hub.api")
    return {"VLLM_USE_MODELSCOPE": "True", "MODELSCOPE_ENDPOINT": hub.url}


def test_a_model_is_read_from_modelscope_by_its_own_package(
    hub: FakeHub, tmp_path: Path, modelscope: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    found = read(hub, tmp_path, **modelscope)
    assert (found.config, found.weight_bytes) == (json.loads(CONFIG), len(WEIGHTS))
    assert {request.authorization for request in hub.seen} == {None}
    hub.seen.clear()
    hub.tokens[TOKEN] = ()
    read(hub, tmp_path, login=TOKEN, **modelscope)
    assert {request.authorization for request in hub.seen} == {f"Bearer {TOKEN}"}
    assert capfd.readouterr() == ("", "")


def test_what_modelscope_does_not_have_or_does_not_answer_is_an_error(
    hub: FakeHub, tmp_path: Path, modelscope: dict[str, str]
) -> None:
    hub.tokens[TOKEN] = ()
    for how in ({"model": "org/none"}, {"revision": "v9"}):
        error = refusal(hub, tmp_path, login=TOKEN, **how, **modelscope)
        assert "ModelScope has no model" in error.message
        assert "(HTTP 404)" in error.message
        assert "MODELSCOPE_API_TOKEN in .env" in str(error.hint)
    hub.page = b"<html>"
    assert "does not answer like the ModelScope API" in refusal(hub, tmp_path, **modelscope).message
    gone = modelscope | {"MODELSCOPE_ENDPOINT": f"http://127.0.0.1:{unused_port()}"}
    assert ": connection refused" in refusal(hub, tmp_path, **gone).message
