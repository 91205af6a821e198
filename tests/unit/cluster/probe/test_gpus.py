"""The GPUs of a host, as its own image sees them."""

from __future__ import annotations

import json

import pytest

from tests.fake_host import FakeHost, Ran
from tests.unit.support import RecordingReporter, binds, card, config
from vllmray.cluster.probe.gpus import gpus_of
from vllmray.errors import HostError, NoGpuRuntimeError
from vllmray.model.layouts import HostGpus
from vllmray.model.memory import GIB

WANTED = config(accelerator="nvidia")


def host(*lines: str) -> FakeHost:
    made = FakeHost(images=["image:1"])
    made.programs["python3"] = lambda record, argv: Ran(lines)
    return made


def test_a_hosts_gpus_are_asked_in_a_container_that_has_them_all_and_leaves_nothing() -> None:
    asked, reporter = host(json.dumps({"cards": [card(), card(), card(24 * GIB)]})), RecordingReporter()
    found = gpus_of(asked, WANTED, reporter)
    assert found == HostGpus("fake://host", (80 * GIB, 80 * GIB, 24 * GIB))
    assert "GPUs of fake://host: = 1 x 24 GiB and 2 x 80 GiB" in reporter.text()
    (spec,) = asked.created
    assert spec.gpus is not None
    assert spec.gpus.count == -1
    assert binds(spec) == []
    assert asked.records == {}


def test_without_a_gpu_runtime_the_hosts_own_files_are_given() -> None:
    asked = FakeHost(images=["image:1"], folders=["/dev"])
    asked.gpu_runtime = False
    files = {"files": ["/dev/nvidia0", "/dev/nvidia1", "/dev/nvidiactl"]}
    memory = json.dumps({"cards": [card(), card()]})
    asked.programs["python3"] = lambda record, argv: Ran((json.dumps(files) if binds(record.spec) else memory,))
    assert gpus_of(asked, WANTED, RecordingReporter()) == HostGpus("fake://host", (80 * GIB, 80 * GIB))
    look, probe = asked.created
    assert binds(look) == [("/dev", "/vllmray/dev", True)]
    assert (look.gpus, look.devices, look.cap_drop) == (None, (), ("ALL",))
    assert (probe.gpus, probe.devices) == (None, ("/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia1"))
    assert asked.records == {}


def test_in_wsl2_a_container_gets_the_one_file_and_the_drivers_libraries() -> None:
    asked = FakeHost(images=["image:1"], folders=["/dev", "/usr/lib/wsl"])
    asked.gpu_runtime = False
    files, memory = json.dumps({"files": ["/dev/dxg"]}), json.dumps({"cards": [card(24 * GIB)]})
    asked.programs["python3"] = lambda record, argv: Ran((files if '"files"' in argv[-1] else memory,))
    assert gpus_of(asked, WANTED, RecordingReporter()).memory == (24 * GIB,)
    probe = asked.created[-1]
    assert (probe.gpus, probe.devices) == (None, ("/dev/dxg",))
    assert [(source, read_only) for source, _, read_only in binds(probe)] == [("/usr/lib/wsl", True)]
    assert probe.env["LD_LIBRARY_PATH"].startswith("/usr/lib/wsl/lib:")


AMD = config(accelerator="amd")


def test_an_amd_hosts_files_are_looked_at_for_its_cards_and_their_groups() -> None:
    asked = FakeHost(images=["image:1"], folders=["/dev"])
    files = ["/dev/kfd", "/dev/dri/renderD129", "/dev/dri/renderD130", "gid=44", "gid=109"]
    memory = json.dumps({"cards": [card(192 * GIB), card(192 * GIB, id="1")]})
    asked.programs["python3"] = lambda record, argv: Ran(
        (json.dumps({"files": files}) if '"files"' in argv[-1] else memory,)
    )
    assert gpus_of(asked, AMD, RecordingReporter()).memory == (192 * GIB, 192 * GIB)
    look, probe = asked.created
    assert binds(look) == [("/dev", "/vllmray/dev", True)]
    assert probe.devices == ("/dev/kfd", "/dev/dri/renderD129", "/dev/dri/renderD130")
    assert probe.group_add == ("44", "109")


@pytest.mark.parametrize("files", [[], ["/dev/kfd"], ["/dev/dri/renderD128"]])
def test_a_host_without_a_card_of_amds_is_an_error_that_says_what_is_missing(files: list[str]) -> None:
    asked = FakeHost(images=["image:1"], folders=["/dev"])
    asked.programs["python3"] = lambda record, argv: Ran((json.dumps({"files": files}),))
    with pytest.raises(HostError, match="no AMD GPU: there is no /dev/kfd, or no render node"):
        gpus_of(asked, AMD, RecordingReporter())
    assert asked.records == {}


@pytest.mark.parametrize("lines", [('{"files": []}',), ("Traceback",), ()])
def test_a_host_with_neither_runtime_nor_files_has_no_gpus_to_give(lines: tuple[str, ...]) -> None:
    asked = FakeHost(images=["image:1"], folders=["/dev"])
    asked.gpu_runtime = False
    asked.programs["python3"] = lambda record, argv: Ran(lines)
    with pytest.raises(NoGpuRuntimeError):
        gpus_of(asked, WANTED, RecordingReporter())
    assert asked.records == {}


@pytest.mark.parametrize("lines", [(), ("Traceback",), ("{}",), ('{"cards": []}',), ('{"cards": ["x"]}',)])
def test_a_host_whose_gpus_can_not_be_told_is_an_error_with_the_way_to_state_them(lines: tuple[str, ...]) -> None:
    with pytest.raises(HostError, match="no nvidia GPU whose memory could be read") as caught:
        gpus_of(host(*lines), WANTED, RecordingReporter())
    assert "--gpus 2x80GiB,2x80GiB" in str(caught.value.hint)


GB10 = card(120 * GIB, free=100 * GIB, name="NVIDIA GB10", unified=True)


def test_of_unified_memory_the_engine_gets_what_is_available_without_the_hosts_reserve() -> None:
    asked, reporter = host(json.dumps({"cards": [GB10]})), RecordingReporter()
    assert gpus_of(asked, WANTED, reporter) == HostGpus("fake://host", (120 * GIB,), share=0.76)
    assert reporter.lines[-1] == (
        "GPUs of fake://host: = 1 x 120 GiB; unified memory: 100.0 of 120.0 GiB are available, the engine takes 91.2 "
        "(--gpu-memory-utilization 0.76)"
    )


@pytest.mark.parametrize(("share", "words"), [("0.8", "which leaves 4.0 GiB"), ("0.9", "vLLM will not start")])
def test_a_share_of_unified_memory_that_is_too_large_is_a_warning(share: str, words: str) -> None:
    asked, reporter = host(json.dumps({"cards": [GB10]})), RecordingReporter()
    gpus_of(asked, config(accelerator="nvidia", vllm_args=("--gpu-memory-utilization", share)), reporter)
    assert reporter.lines[-1].startswith("warning: fake://host: unified memory: 100.0 of 120.0 GiB are available")
    assert words in reporter.lines[-1]
    assert "--gpu-memory-utilization 0.76 leaves" in reporter.lines[-1]


def test_a_host_without_the_image_says_so_and_pulls_nothing() -> None:
    asked = FakeHost(images=[])
    with pytest.raises(HostError, match="there is no image image:1, which is needed to inspect its GPUs"):
        gpus_of(asked, WANTED, RecordingReporter())
    assert asked.created == []
