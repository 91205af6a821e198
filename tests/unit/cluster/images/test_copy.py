"""An image from one host to others, over fakes; tests/e2e does it with daemons."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fake_host import FakeHost
from tests.unit.support import FakeClock, RecordingReporter
from vllmray.cluster.images.copy import copy_image
from vllmray.errors import HostError
from vllmray.hosts.base import Host
from vllmray.hosts.facts import Image
from vllmray.images.recipe import derived_name

SIZE = 10_000_000


def fake(number: int, *images: str) -> FakeHost:
    host = FakeHost(images)
    host.address = f"fake://{number}"
    return host


@pytest.fixture
def source() -> FakeHost:
    host = fake(0, "image:1")
    host.images["image:1"] = Image("sha256:a", SIZE, "")
    return host


def copy(source: Host, *targets: Host) -> RecordingReporter:
    reporter = RecordingReporter()
    copy_image(source, targets, "image:1", reporter, FakeClock())
    return reporter


def test_every_target_has_the_same_image_and_the_source_was_read_once(source: FakeHost) -> None:
    targets = fake(1), fake(2)
    copy(source, *targets)
    assert [target.images["image:1"].id for target in targets] == ["sha256:a", "sha256:a"]
    assert source.calls == ["save image:1"]


def test_an_image_for_another_processor_is_refused_before_anything_is_sent_with_the_targets_that_it_is_not_for(
    source: FakeHost,
) -> None:
    source.images["image:1"] = Image("sha256:a", SIZE, "", architecture="amd64")
    arm, like = fake(1), fake(2)
    arm.architecture = "arm64"
    with pytest.raises(HostError, match=r"^image image:1 is for amd64, and can't run on fake://1$") as caught:
        copy(source, arm, like)
    assert (source.calls, arm.calls, like.calls) == ([], [], [])
    assert caught.value.details == "fake://1: its processor is arm64"
    copy(source, like)
    assert like.calls == ["load"]


def test_where_a_processor_is_not_known_an_image_is_sent(source: FakeHost) -> None:
    source.images["image:1"] = Image("sha256:a", SIZE, "", architecture="amd64")
    silent = fake(1)
    silent.architecture = ""
    copy(source, silent)
    assert silent.calls == ["load"]


def test_what_is_there_already_is_not_sent(source: FakeHost) -> None:
    has_it, has_another = fake(1), fake(2, "image:1")
    has_it.images["image:1"] = Image("sha256:a", SIZE, "")
    reporter = copy(source, has_it, has_another)
    assert (has_it.calls, has_another.calls) == ([], ["load"])
    assert "host fake://1: = has it already" in reporter.lines
    assert "copying: = 1 host" in reporter.lines
    copy(source, has_it, has_another)
    assert source.calls == ["save image:1"]


def test_the_image_that_was_made_of_it_goes_along(source: FakeHost) -> None:
    derived = derived_name("sha256:a")
    source.images[derived] = Image("sha256:b", SIZE + 1, "")
    target = fake(1)
    target.images["image:1"] = Image("sha256:a", SIZE, "")
    copy(source, target)
    assert source.calls == [f"save image:1 {derived}"]
    assert target.images[derived].id == "sha256:b"


def test_an_image_that_is_not_there_is_an_error_before_any_target_is_asked(source: FakeHost) -> None:
    source.images.clear()
    with pytest.raises(HostError, match="there is no image image:1"):
        copy(source, fake(1))


class FullHost(FakeHost):
    def load(self, stream: Iterator[bytes]) -> None:
        next(stream)
        raise HostError("fake://full: could not load", details="no space left on device", hint="Free some disk space")


def test_one_target_that_fails_is_named_and_the_others_have_the_image(source: FakeHost) -> None:
    full, good = FullHost(()), fake(1)
    full.address = "fake://full"
    with pytest.raises(HostError, match=r"image image:1 was not copied to fake://full$") as caught:
        copy(source, full, good)
    assert caught.value.details == "fake://full: no space left on device"
    assert caught.value.hint == "Free some disk space"
    assert good.image("image:1")


class CutHost(FakeHost):
    def save(self, names: object) -> Iterator[bytes]:
        yield b"image:1 sha2"
        raise HostError("fake://0: could not read image:1", details="connection reset")


def test_when_the_source_breaks_off_that_is_the_error_and_no_target_has_it() -> None:
    source, target = CutHost(), fake(1)
    with pytest.raises(HostError, match="could not read image:1"):
        copy(source, target)
    assert target.images == {}
