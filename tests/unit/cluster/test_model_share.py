"""Which hosts are sent a model, and by whom, with hosts in memory; the bytes: tests/programs/test_model_share.py."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from tests.fake_host import FakeHost, Ran, Record
from tests.unit.cluster.test_up_all import RecordingBoard
from tests.unit.support import FakeClock, RecordingStep
from vllmray.cluster.members import Interruption, Member
from vllmray.cluster.model.files import Progress, is_of_the_hub
from vllmray.cluster.model.share import ModelShare
from vllmray.cluster.spec.model_share import PORT, REQUEST
from vllmray.config.models import ClusterConfig
from vllmray.errors import HostError

ENTRIES = [{"path": "blobs/a", "size": 5, "digest": "sha256:a", "link": ""}]
MORE = {"path": "blobs/b", "size": 1, "digest": "git:b", "link": ""}


@dataclass
class Site:
    """Hosts, what each has, and what they were told."""

    has: dict[str, list[dict[str, Any]]]
    folders: dict[str, str] = field(default_factory=dict)
    """By host the folder that it shares with others."""
    requests: dict[str, dict[str, Any]] = field(default_factory=dict)
    marks: dict[str, set[str]] = field(default_factory=dict)
    downloads: list[str] = field(default_factory=list)
    error: str = ""
    lost: bool = False
    """The program says that all came, and nothing is there."""

    def members(self, **fields: Any) -> list[Member]:
        config = ClusterConfig(**({"model": "org/model", "accelerator": "cpu", "image": "image:1"} | fields))
        made = []
        for name in self.has:
            host = FakeHost()
            host.address = f"fake://{name}"
            host.programs["python3"] = partial(self.program, name)
            member = Member(name, host.address, "worker", config, connect=partial(_same, host))
            member.connected = host
            made.append(member)
        return made

    def share(self, **fields: Any) -> RecordingBoard:
        board = RecordingBoard()
        addresses = {name: f"10.0.0.{number}" for number, name in enumerate(self.has, start=1)}
        ModelShare(self.members(**fields), addresses, board, Interruption()).run()
        return board

    def program(self, name: str, record: Record, argv: tuple[str, ...]) -> Ran:
        if argv[1].endswith("model/listing.py"):
            return Ran((json.dumps(self.listing(name, json.loads(argv[2]))),))
        if argv[1].endswith("model/fetch.py"):
            self.downloads.append(name)
            self.has[name] = list(ENTRIES)
            return Ran((json.dumps({"done": 5, "total": 5}), json.dumps({"commit": "c"})))
        (request,) = (file.content for file in record.spec.files if file.path == REQUEST)
        self.requests[name] = json.loads(request)
        if not self.error and not self.lost:
            same = [each for each in self.has if self.folders.get(each, each) == self.folders.get(name, name)]
            self.has |= {each: list(self.requests[name]["entries"]) for each in same}
        end = {"error": self.error} if self.error else {"whole": True, "done": 5, "total": 5}
        return Ran((json.dumps({"port": PORT, "done": 0, "total": 5}), json.dumps(end)), None)

    def listing(self, name: str, request: dict[str, Any]) -> dict[str, Any]:
        marks = self.marks.setdefault(self.folders.get(name, name), set())
        marks |= {request["mark"]} if "mark" in request else set()
        entries = self.has[name]
        found = {"root": "/r", "commit": "c" if entries else "", "entries": entries, "whole": bool(entries)}
        return found | {"wrong": [], "free": 10, "marks": sorted(marks)}


def _same(host: FakeHost) -> FakeHost:
    return host


def test_hosts_that_have_it_are_sent_nothing_even_where_one_has_more() -> None:
    site = Site({"a": ENTRIES, "b": [*ENTRIES, MORE]})
    site.share()
    assert (site.requests, site.downloads) == ({}, [])


def test_it_is_downloaded_once_and_each_host_asks_the_one_before_it_and_then_the_source() -> None:
    site = Site({"a": [], "b": [], "c": []})
    site.share()
    assert site.downloads == ["a"]
    assert {name: request["sources"] for name, request in site.requests.items()} == {
        "a": [],
        "b": [["10.0.0.1", PORT]],
        "c": [["10.0.0.2", PORT], ["10.0.0.1", PORT]],
    }
    assert site.requests["c"]["entries"] == ENTRIES
    assert site.requests["c"]["texts"] == {"refs/main": "c"}


def test_a_host_that_has_it_is_the_source_wherever_it_stands() -> None:
    site = Site({"a": [], "b": ENTRIES})
    site.share()
    assert site.downloads == []
    assert site.requests["a"]["sources"] == [["10.0.0.2", PORT]]


def test_a_folder_that_hosts_share_is_filled_once() -> None:
    site = Site({"a": ENTRIES, "b": ENTRIES, "c": [], "d": []}, folders={"a": "x", "b": "x", "c": "y", "d": "y"})
    site.share()
    assert set(site.requests) == {"a", "c"}


def test_another_revision_has_its_own_name_on_every_host_and_a_commit_has_none() -> None:
    for revision, texts in (("v1", {"refs/v1": "c"}), ("c", {})):
        site = Site({"a": ENTRIES, "b": []})
        site.share(vllm_args=("--revision", revision))
        assert site.requests["b"]["texts"] == texts


def test_a_host_that_has_not_what_it_said_is_named_before_an_engine_reads_it() -> None:
    site = Site({"a": ENTRIES, "b": []}, lost=True)
    with pytest.raises(HostError, match="b: not the files of revision c that the other hosts have"):
        site.share()


def test_without_a_hub_nothing_is_downloaded_and_that_is_said() -> None:
    site = Site({"a": [], "b": []})
    with pytest.raises(HostError, match="no host has org/model, and HF_HUB_OFFLINE is set"):
        site.share(env=("HF_HUB_OFFLINE=1",))
    assert site.downloads == []
    Site({"a": [], "b": ENTRIES}).share(env=("HF_HUB_OFFLINE=1",))


def test_a_host_that_does_not_get_it_is_named_with_the_programs_words_and_nothing_keeps_running() -> None:
    site = Site({"a": ENTRIES, "b": []}, error="not enough space: 5.0 GB are missing and 1.0 GB are free")
    with pytest.raises(HostError) as caught:
        site.share()
    assert caught.value.message == "b: org/model did not come whole"
    assert caught.value.details == site.error


@pytest.mark.parametrize(
    ("fields", "is_one"),
    [
        ({"model": "org/model"}, True),
        ({"model": "/models/x"}, False),
        ({"model": "s3://bucket/x"}, False),
        ({"model": "gpt2"}, True),
        ({"model": "org/model", "env": ("VLLM_USE_MODELSCOPE=True",)}, False),
    ],
)
def test_only_a_model_of_the_hub_is_shared(fields: dict[str, Any], is_one: bool) -> None:
    assert is_of_the_hub(ClusterConfig(**fields)) is is_one


def test_progress_has_the_rate_and_the_time_that_is_left() -> None:
    clock, step = FakeClock(), RecordingStep()
    progress = Progress(step, "m", clock)
    progress.read(json.dumps({"done": 0, "total": 3 * 10**9}))
    clock.sleep(10)
    progress.read(json.dumps({"done": 10**9, "total": 3 * 10**9}))
    progress.read("not JSON")
    assert progress.tail == ["not JSON"]
    assert step.reporter.lines == [
        "step: m 0/3000000000 at 0 MB/s",
        "step: m 1000000000/3000000000 at 100 MB/s, 20 s left",
    ]
