"""docs/schemas says what --json prints: of every command, and of errors."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it has no types of its own
import pytest

from tests.unit.cli.test_again import node as _node  # noqa: F401  # a fixture
from tests.unit.cli.test_cli import exit_code
from tests.unit.cli.test_plan import DUMMY, make_model
from tests.unit.output.test_output import access, view
from tests.unit.support import config, image_answer, resolved
from vllmray.cluster.observe.gpu_memory import GpuMemory
from vllmray.cluster.run import Outcome
from vllmray.config.file_schema import NAME, file_schema
from vllmray.config.settings import state_folder
from vllmray.errors import HostError, WorkloadError
from vllmray.images.facts import ImageFacts
from vllmray.output import results, stored_results
from vllmray.output.envelope import envelope, error_envelope, status_data, up_data
from vllmray.output.schemas import RESULTS, file_name, schemas
from vllmray.secrets.store import API_KEY, RAY_TOKEN, SecretStore

FOLDER = Path(__file__).parents[3] / "docs/schemas"
NATIVE = ("--runtime", "native")


def checked(line: str, file: str = "") -> Any:
    """The envelope in a line, held to the schema of its command, or to that of another file."""
    found = json.loads(line)
    schema = json.loads((FOLDER / (file or file_name(found["command"]))).read_text())
    jsonschema.validate(found, schema, cls=jsonschema.Draft202012Validator)
    return found["error" if "error" in found else "data"]


def test_the_files_are_what_the_code_says() -> None:
    wanted = schemas() | {NAME: file_schema()}
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(wanted)
    for name, schema in wanted.items():
        assert json.loads((FOLDER / name).read_text()) == schema, "run .venv/bin/python scripts/schemas"


def test_a_schema_refuses_what_is_missing_and_what_it_does_not_know() -> None:
    found = json.loads(envelope("down", results.Down("lab", ["a"])))
    for data in ({"cluster": "lab"}, {"cluster": "lab", "removed": ["a"], "more": 1}, {"cluster": 1, "removed": []}):
        with pytest.raises(jsonschema.ValidationError):
            checked(json.dumps(found | {"data": data}))


def test_a_status_is_what_its_schema_says() -> None:
    found = view()
    data = checked(envelope("status", status_data(found)))
    assert data["engine"]["phase"] == "waiting"
    gpu = asdict(GpuMemory(0, "NVIDIA H200", 1, 2))
    assert asdict(results.GpuMemory(**gpu)) == gpu


def test_what_up_made_is_what_its_schema_says() -> None:
    settled = config(node_ip="10.0.0.1", head_ip="10.0.0.1", cluster="lab")
    outcome = Outcome("head", resolved(settled), "vllmray up --role worker", ready=True)
    data = checked(envelope("up", up_data(outcome, "unix:///docker.sock", access())))
    assert (data["endpoint"], data["header_file"]) == ("http://10.0.0.1:8000/v1", "/state/my key.header")
    data = checked(envelope("up", up_data(outcome, "unix:///docker.sock", None)))
    assert (data["endpoint"], data["worker_command"]) == (None, "vllmray up --role worker")


def test_what_an_image_holds_is_what_its_schema_says() -> None:
    facts = ImageFacts(id="sha256:1", **image_answer())
    data = checked(envelope("image inspect", stored_results.ImageContents(**asdict(facts))))
    assert data["versions"]["ray"] == "2.60.0"


@pytest.mark.parametrize(
    "result",
    [
        results.Demo("demo", "native", "http://10.0.0.1:8000/v1", "?", "!", removed=False),
        results.Logs("lab", "unix:///s", ["a line"]),
        results.Bundle("bundle.tar.gz", ["status: no daemon"]),
        results.Dashboard("http://127.0.0.1:8265"),
        results.Chat("some/model", "Paris.", []),
        results.Rotation("lab", "vllmray up --role worker"),
        stored_results.BuiltImage("image:1"),
        stored_results.CopiedImage("image:1", "unix:///s", ["ssh://gpu2"]),
    ],
)
def test_results_that_take_a_cluster_are_what_their_schemas_say(result: Any) -> None:
    command = next(command for command, kind in RESULTS.items() if kind is type(result))
    assert checked(envelope(command, result)) == asdict(result)


def printed(capsys: pytest.CaptureFixture[str], *argv: str) -> Any:
    """The result of a command as it is typed, held to its schema; --json may stand before it too."""
    assert exit_code(*argv) == 0
    return checked(capsys.readouterr().out)


@pytest.mark.usefixtures("_node")
def test_commands_print_what_their_schemas_say(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = SecretStore(state_folder(), "vllmray")
    store.keep(API_KEY, "sk-a\nsk-b")
    store.keep(RAY_TOKEN, "t" * 32)
    assert printed(capsys, "--json", "version")["python"]
    assert printed(capsys, "key", "--json") == {"cluster": "vllmray", "keys": ["sk-a", "sk-b"]}
    assert printed(capsys, "--json", "token") == {"cluster": "vllmray", "token": "t" * 32}
    assert printed(capsys, "events", "--json", *NATIVE)["events"][0]["kind"] == "node-started"
    assert "Ray says" in printed(capsys, "logs", "--json", *NATIVE)["lines"]
    path = make_model(folder, "llama-3.1-70b")
    assert printed(capsys, "plan", str(path), "--gpus", "2x80GiB,2x80GiB", "--json", *DUMMY)["layouts"]
    planned = printed(
        capsys, "up", "--role", "head", "--node-ip", "10.0.0.1", "--no-model-check", "--dry-run", "--json"
    )
    assert planned["summary"]["endpoint"] == "http://10.0.0.1:8000/v1, API key"
    assert any("--num-gpus" in line for line in planned["commands"])
    assert printed(capsys, "restart", "--json", "--no-wait", *NATIVE)["restarted"] == ["vllmray-worker"]
    assert printed(capsys, "--json", "down", *NATIVE) == {"cluster": "vllmray", "removed": ["vllmray-worker"]}


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (("--json", "status", *NATIVE), 4, "vllmray"),
        (("status", "--json", "--host", "tcp://192.0.2.1:1"), 3, "192.0.2.1"),
        (("events", "--json", "--since", "x"), 2, "invalid duration"),
        (("plan", "--json", "--no-such"), 2, "No such option"),
        (("chat", "--json"), 2, "--json"),
        (("nonsense", "--json"), 2, "No such command"),
    ],
)
def test_with_json_an_error_is_an_envelope_too_and_its_exit_code_and_its_text_stay(
    argv: tuple[str, ...], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(*argv) == code
    captured = capsys.readouterr()
    error = checked(captured.out, "error.json")
    assert error["code"] == code
    assert words in error["message"]
    assert f"error: {error['message']}" in captured.err
    assert error["hint"] is None or f"hint: {error['hint']}" in captured.err


def test_every_part_of_an_error_is_in_its_envelope() -> None:
    error = HostError("message", details="details", hint="hint")
    found = checked(error_envelope("up", error, log=Path("/a/log")), "error.json")
    assert found == {"code": 3, "message": "message", "details": "details", "hint": "hint", "log": "/a/log"}
    assert checked(error_envelope("up", WorkloadError("message")), "error.json")["code"] == 6


def test_the_schemas_have_the_words_of_their_fields() -> None:
    data = json.loads((FOLDER / "status.json").read_text())["properties"]["data"]
    assert data["properties"]["problem"]["description"] == "Why it is not ready."
