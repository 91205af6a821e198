"""The command line of a cluster file with hosts: what it refuses, a dry run, init and import."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from tests.unit.cli.test_cli import exit_code
from vllmray.cli.host_record import HostRecord

FILE = """version = 1
[cluster]
name = "lab"
model = "some/model"
layout = "TP 2, PP 2"
[[hosts]]
address = "gpu1"
node_ip = "10.0.0.1"
[[hosts]]
address = "gpu2"
"""
UP = ("up", "--no-model-check")


@pytest.fixture
def file(nowhere: Path) -> Path:
    path = nowhere / "vllmray.toml"
    path.write_text(FILE)
    return path


@pytest.mark.usefixtures("nowhere")
def test_without_a_role_and_without_hosts_it_is_said_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(*UP) == 2
    err = capsys.readouterr().err
    assert "error: no hosts to start: there is no vllmray.toml" in err
    assert "--role head or --role worker" in err
    Path("vllmray.toml").write_text('model = "m"\n')
    assert exit_code(*UP) == 2
    assert "error: no hosts to start: vllmray.toml lists none" in capsys.readouterr().err


@pytest.mark.usefixtures("file")
def test_one_host_and_all_hosts_exclude_each_other(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert exit_code(*UP, "--host", "ssh://gpu1") == 2
    assert "--host is one host" in capsys.readouterr().err
    monkeypatch.setenv("VLLMRAY_HOST", "ssh://gpu1")
    assert exit_code(*UP) == 2
    assert "VLLMRAY_HOST is one host" in capsys.readouterr().err


@pytest.mark.usefixtures("file")
def test_a_host_that_is_not_in_the_file_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(*UP, "--only", "gpu3") == 2
    assert "no such host in the cluster file: gpu3" in capsys.readouterr().err
    assert exit_code(*UP, "--skip", "gpu1", "--skip", "gpu2") == 2
    assert "no host is left" in capsys.readouterr().err


def test_a_dry_run_shows_every_host_the_heads_first_and_writes_nothing(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(file.parent.rglob("*"))
    assert exit_code(*UP, "--dry-run") == 0
    out = capsys.readouterr().out
    assert out.index("# gpu1") < out.index("cluster     lab, head on ssh://gpu1") < out.index("# gpu2")
    assert "cluster     lab, worker on ssh://gpu2" in out
    assert "head        10.0.0.1:6379" in out
    assert exit_code(*UP, "--dry-run=commands") == 0
    assert capsys.readouterr().out.count("docker run --detach") == 3
    assert exit_code(*UP, "--dry-run", "--json") == 0
    roles = [json.loads(line)["data"]["role"] for line in capsys.readouterr().out.splitlines()]
    assert roles == ["head", "worker"]
    assert sorted(file.parent.rglob("*")) == before


def test_init_writes_over_no_file_and_takes_only_addresses(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("init", "--hosts", "gpu1") == 2
    assert "error: vllmray.toml exists" in capsys.readouterr().err
    assert exit_code("init", "--hosts", "a b", "--output", "-") == 2
    assert "not the address of a host: a b" in capsys.readouterr().err
    assert exit_code("init", "--hosts", "gpu1,gpu1", "--output", "-") == 2
    assert "each host once" in capsys.readouterr().err
    assert file.read_text() == FILE


def test_import_writes_the_file_and_names_what_it_left_out(nowhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = nowhere / "node1"
    folder.mkdir()
    (folder / ".env").write_text("MODEL_NAME=org/model\nFOO=1\n")
    (folder / "compose.yaml").write_text(
        'services: {a: {image: i, command: "ray start --head; vllm serve org/model"}}\n'
    )
    assert exit_code("import", "node1", "--host", "gpu1", "--json") == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert data == {"file": "vllmray.toml", "hosts": ["gpu1"], "notices": ["node1: FOO in .env: not read by vllmray"]}
    assert tomllib.loads((nowhere / "vllmray.toml").read_text())["cluster"]["model"] == "org/model"
    assert exit_code("import", "node1", "--host", "gpu1") == 2
    assert exit_code("import", "node1", "--host", "gpu1", "--force") == 0
    captured = capsys.readouterr()
    assert "not taken over: node1: FOO in .env" in captured.err
    assert "wrote vllmray.toml: 1 host" in captured.out
    assert exit_code("import", "nowhere", "--force") == 2
    assert "nowhere is not a folder" in capsys.readouterr().err


@pytest.mark.usefixtures("nowhere")
def test_the_record_of_hosts_has_what_was_started_and_is_empty_when_it_can_not_be_read() -> None:
    record = HostRecord("lab")
    assert record.read() == {}
    record.add({"gpu1": "ssh://gpu1", "gpu2": "ssh://gpu2"})
    record.remove("gpu1")
    assert HostRecord("lab").read() == {"gpu2": "ssh://gpu2"}
    record._folder.write("hosts.json", "no JSON")
    assert record.read() == {}
