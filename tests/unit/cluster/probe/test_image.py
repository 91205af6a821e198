"""Asking an image, against a host in memory."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from tests.fake_host import FakeHost, Ran, Record
from vllmray.cluster.probe.image import inspect
from vllmray.errors import HostError

ANSWER = {
    "versions": {"ray": None, "vllm": "0.33.0", "torch": "2.14.0"},
    "python": "3.12.3",
    "cuda": "13.0",
    "nccl": "2.28.9",
    "nccl_sha256": "ab" * 32,
    "ray_command": None,
}


def answering(*lines: str) -> tuple[FakeHost, list[str]]:
    """A host whose images print these lines, and the names of the containers that were asked."""
    host, asked = FakeHost(), []

    def python(record: Record, argv: tuple[str, ...]) -> Ran:
        asked.append(record.spec.name)
        return Ran(lines)

    host.programs["python3"] = python
    return host, asked


def test_an_image_is_asked_once_and_the_answer_is_kept_by_its_id(tmp_path: Path) -> None:
    host, asked = answering("a warning of something", json.dumps(ANSWER))
    host.images["image:1"] = replace(host.images["image:1"], entrypoint=("vllm", "serve"), user="2000")
    facts = inspect(host, "image:1", tmp_path / "cache")
    assert (facts.vllm, facts.versions["ray"], facts.python, facts.cuda) == ("0.33.0", None, "3.12.3", "13.0")
    assert (facts.entrypoint, facts.user, facts.id) == (("vllm", "serve"), "2000", "sha256:image:1")
    host.images["other-name:1"] = host.images["image:1"]
    assert inspect(host, "other-name:1", tmp_path / "cache") == facts
    assert len(asked) == 1
    assert host.records == {}


def test_an_answer_that_another_version_of_the_question_was_given_is_not_read(tmp_path: Path) -> None:
    host, asked = answering(json.dumps(ANSWER))
    facts = inspect(host, "image:1", tmp_path)
    (kept,) = tmp_path.glob("*.json")
    old = json.dumps(asdict(replace(facts, python="2.7")))
    kept.rename(tmp_path / "image:1-000000000000.json")
    for name in ("image:1.json", "image:1-000000000000.json"):
        (tmp_path / name).write_text(old)
    assert inspect(host, "image:1", tmp_path) == facts
    assert len(asked) == 2


def test_what_can_change_under_one_id_is_asked_each_time(tmp_path: Path) -> None:
    host, asked = answering(json.dumps(ANSWER))
    host.images["image:1"] = replace(host.images["image:1"], fixed=False)
    inspect(host, "image:1", tmp_path)
    inspect(host, "image:1", tmp_path)
    assert len(asked) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("spoilt", ["", "not json", "[]", '{"id": 1}'])
def test_a_spoilt_answer_in_the_cache_is_asked_again(tmp_path: Path, spoilt: str) -> None:
    host, asked = answering(json.dumps(ANSWER))
    first = inspect(host, "image:1", tmp_path)
    (kept,) = tmp_path.glob("*.json")
    kept.write_text(spoilt)
    assert inspect(host, "image:1", tmp_path) == first
    assert len(asked) == 2


def test_a_cache_that_can_not_be_written_costs_time_only() -> None:
    host, asked = answering(json.dumps(ANSWER))
    assert inspect(host, "image:1", Path("/proc/nowhere")).vllm == "0.33.0"
    assert inspect(host, "image:1", Path("/proc/nowhere")).vllm == "0.33.0"
    assert len(asked) == 2


@pytest.mark.parametrize("lines", [(), ("Traceback", "ImportError: no json"), ("[1]",)])
def test_an_image_that_can_not_answer_is_an_error_with_its_words(tmp_path: Path, lines: tuple[str, ...]) -> None:
    host, _ = answering(*lines)
    with pytest.raises(HostError, match="could not be inspected") as caught:
        inspect(host, "image:1", tmp_path)
    assert str(caught.value.details) == ("\n".join(lines) or "it printed nothing")
    assert list(tmp_path.iterdir()) == []
    assert host.records == {}


@pytest.mark.parametrize("line", [
    "exec /usr/bin/python3: exec format error",
    "[FATAL tini (7)] exec python3 failed: Exec format error",
])  # fmt: skip
def test_an_image_whose_label_is_wrong_about_its_architecture_is_not_said_to_lack_python(
    tmp_path: Path, line: str
) -> None:
    host, _ = answering(line)
    with pytest.raises(HostError, match="could not be inspected") as caught:
        inspect(host, "image:1", tmp_path)
    assert line in str(caught.value.details)
    assert caught.value.hint == (
        "Its programs are for another architecture than this host's (amd64), though the image is labelled with amd64: "
        "rebuild it from a base for this host's, or use another image."
    )


def test_an_image_for_another_architecture_is_refused_before_anything_of_it_runs_and_though_its_answer_is_known(
    tmp_path: Path,
) -> None:
    host, asked = answering(json.dumps(ANSWER))
    inspect(host, "image:1", tmp_path)
    host.architecture = "arm64"
    with pytest.raises(HostError, match=r"image image:1 is for amd64, and this host is arm64$") as caught:
        inspect(host, "image:1", tmp_path)
    assert str(caught.value.hint).endswith(": docker pull --platform linux/arm64 image:1")
    assert len(asked) == 1


@pytest.mark.parametrize(("image", "there"), [("", "arm64"), ("amd64", "")])
def test_where_an_architecture_is_not_known_an_image_is_asked(tmp_path: Path, image: str, there: str) -> None:
    host, asked = answering(json.dumps(ANSWER | {"machine": "aarch64"}))
    host.images["image:1"] = replace(host.images["image:1"], architecture=image)
    host.architecture = there
    assert inspect(host, "image:1", tmp_path).architecture == "arm64"
    assert len(asked) == 1


def test_an_image_that_is_not_there_is_an_error_that_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="no image nothing:1"):
        inspect(FakeHost(), "nothing:1", tmp_path)
