"""`vllmray logs --bundle`: what a bug report needs, and no secret."""

from __future__ import annotations

import json
import stat
import tarfile
from pathlib import Path

import pytest

from tests.unit.cli.test_again import node  # noqa: F401  # a fixture
from tests.unit.cli.test_cli import exit_code
from vllmray.secrets.redact import REDACTED
from vllmray.secrets.store import API_KEY, RAY_TOKEN, SCRAPE_TOKEN, TLS_KEY, SecretStore

NATIVE = ("--runtime", "native")
PLANTED = {
    "environment": "planted-in-the-environment",
    "dot-env": "planted-in-dot-env",
    RAY_TOKEN: "planted-as-ray-token-0123456789",
    API_KEY: 'planted-as-"api"-key',
    SCRAPE_TOKEN: "planted-as-scrape-token",
    TLS_KEY: "plantedAsAPrivateKey",
    "by its shape": "hf_plantedbyitsshape",
    "by its name": "planted-by-its-name",
    "in a header": "planted-in-a-header",
}


def contents(path: Path) -> dict[str, str]:
    """Texts of a bundle by their names, all below one folder."""
    with tarfile.open(path) as tar:
        found = {member.name: tar.extractfile(member) for member in tar.getmembers()}
        texts = {name: file.read().decode() for name, file in found.items() if file}
    assert {name.partition("/")[0] for name in texts} == {path.name.partition(".")[0]}
    return {name.partition("/")[2]: text for name, text in texts.items()}


@pytest.fixture
def planted(node: Path, nowhere: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811  # the fixture
    """Secrets wherever they may be, and each of them in the log of the node."""
    monkeypatch.setenv("HF_TOKEN", PLANTED["environment"])
    (nowhere / ".env").write_text(f"VLLM_API_KEY={PLANTED['dot-env']}\nMODEL_NAME=some/model\n")
    store = SecretStore(state, "lab")
    for name in (RAY_TOKEN, API_KEY, SCRAPE_TOKEN, TLS_KEY):
        store.keep(name, PLANTED[name])
    said = [*PLANTED.values(), f'"MY_PASSWORD": "{PLANTED["by its name"]}"', f"Bearer {PLANTED['in a header']}"]
    said = [line for line in said if line not in (PLANTED["by its name"], PLANTED["in a header"])]
    with node.open("a") as log:
        log.write("\n".join([*said, json.dumps(PLANTED[API_KEY]), "an ordinary line"]) + "\n")


@pytest.mark.usefixtures("planted")
def test_a_bundle_has_what_a_report_needs_and_no_secret(nowhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("down", "--cluster", "other", *NATIVE) == 0
    capsys.readouterr()
    assert exit_code("logs", "--bundle", "report.tar.gz", "--json", *NATIVE) == 0
    told = json.loads(capsys.readouterr().out)["data"]
    path = nowhere / "report.tar.gz"
    assert told == {"bundle": str(path), "missing": []}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    texts = contents(path)
    assert sorted(texts) == [
        *("events.json", "logs/vllmray-worker.log", "missing.txt", "run.log", "settings/here.json"),
        *("settings/vllmray-worker.json", "status.json", "versions.json"),
    ]
    whole = "\n".join(texts.values())
    assert [name for name, secret in PLANTED.items() if secret in whole or json.dumps(secret)[1:-1] in whole] == []
    assert REDACTED in texts["logs/vllmray-worker.log"]
    assert "an ordinary line" in texts["logs/vllmray-worker.log"]
    assert json.loads(texts["settings/here.json"])["model"] == "some/model"
    assert json.loads(texts["status.json"])["data"]["cluster"] == "vllmray"
    assert "vllmray down" in texts["run.log"]
    assert json.loads(texts["versions.json"])["python"]


def test_without_a_cluster_or_a_host_there_is_a_bundle_that_says_so(
    nowhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code("logs", "--bundle") == 0
    (path,) = nowhere.glob("vllmray-*.tar.gz")
    said = capsys.readouterr()
    assert said.out == f"{path}\n"
    texts = contents(path)
    assert "no.sock" in texts["missing.txt"]
    assert "no.sock" in said.err
    assert "versions.json" in texts


def test_a_file_that_is_there_is_kept(nowhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (nowhere / "report.tar.gz").write_text("mine")
    assert exit_code("logs", "--bundle=report.tar.gz", *NATIVE) == 2
    assert "can't write" in capsys.readouterr().err
    assert (nowhere / "report.tar.gz").read_text() == "mine"
