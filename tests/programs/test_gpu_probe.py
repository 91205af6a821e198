"""The look at GPUs, with a program in the place of nvidia-smi, an object in that of NVML, and files in that of /sys."""

from __future__ import annotations

import ctypes
import json
import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.support import RecordingReporter, config
from vllmray.cluster.probe.cards import cards_in
from vllmray.cluster.probe.free_memory import Room
from vllmray.cluster.probe.gpus import gpus_of
from vllmray.errors import HostError
from vllmray.hosts.native.host import NativeHost
from vllmray.payload.probes import host as program
from vllmray.payload.probes.gpus import amd_cards, amd_nodes, device_files, gpus, nvml_cards, visible, visible_names

MIB, GIB = 1024**2, 1024**3
SMI = """#!/bin/sh
case "$1" in
  --query-gpu=index,uuid,name,memory.total,memory.used,memory.free,mig.mode.current) cat {folder}/gpus ;;
  --query-compute-apps=gpu_uuid,pid,used_memory,process_name) cat {folder}/processes ;;
  *) echo "not a query: $*" >&2; exit 2 ;;
esac
"""
H100 = "{index}, GPU-{index}{index}, NVIDIA H100 80GB HBM3, 81559, {used}, {free}, Disabled\n"
EMPTY = H100.format(index=0, used=1, free=81007)
FULL = H100.format(index=1, used=76000, free=5008)


@pytest.fixture
def smi(tmp_path: Path) -> Path:
    """A folder for PATH, where nvidia-smi prints the files `gpus` and `processes` beside it."""
    program = tmp_path / "nvidia-smi"
    program.write_text(SMI.format(folder=tmp_path))
    program.chmod(0o755)
    (tmp_path / "processes").write_text("")
    return tmp_path


def asked(path: Path | None, *, accelerator: str = "nvidia", **environment: str) -> dict[str, Any]:
    """What the program answers as a host runs it: on its own, with nothing of this package to import."""
    env = {"PATH": f"{path}:/usr/bin:/bin" if path else "/nowhere", **environment}
    argv = [sys.executable, "-I", "-S", program.__file__, json.dumps({"accelerator": accelerator})]
    said = subprocess.run(argv, capture_output=True, text=True, env=env, check=True, cwd="/").stdout
    answer: dict[str, Any] = json.loads(said)
    return answer


def test_the_program_runs_alone_and_tells_each_gpu(smi: Path) -> None:
    (smi / "gpus").write_text(EMPTY + FULL)
    empty, full = asked(smi)["cards"]
    assert empty == {
        "id": "0",
        "uuid": "GPU-00",
        "name": "NVIDIA H100 80GB HBM3",
        "total": 81008 * MIB,  # as CUDA has it: without what the driver keeps for itself
        "free": 81007 * MIB,
        "unified": False,
    }
    assert (full["id"], full["free"]) == ("1", 5008 * MIB)


@pytest.mark.parametrize(
    ("named", "ids", "count"),
    [
        ("1", ["1"], 1),
        ("1,0", ["1", "0"], 2),
        ("GPU-11", ["1"], 1),
        ("0,-1,1", ["0"], 1),
        ("NoDevFiles", [], 0),
        ("-1", [], 0),
        ("", [], 0),
        ("7", [], 1),  # CUDA will say that there is none of that number
    ],
)
def test_a_process_counts_the_gpus_that_cuda_would_let_it_see(
    smi: Path, named: str, ids: list[str], count: int
) -> None:
    (smi / "gpus").write_text(EMPTY + FULL)
    answer = asked(smi, CUDA_VISIBLE_DEVICES=named)
    assert ([card["id"] for card in answer["cards"]], answer["gpus"]) == (ids, count)


def test_a_name_of_a_gpu_is_what_cuda_takes_for_one() -> None:
    assert visible_names("0, GPU-8a1b,MIG-5c/1/0,no,1") == ["0", "GPU-8a1b", "MIG-5c/1/0"]


def test_a_gpu_without_memory_of_its_own_has_the_hosts(smi: Path) -> None:
    (smi / "gpus").write_text("0, GPU-0, NVIDIA GB10, [N/A], [N/A], [N/A], [N/A]\n")
    (card,) = asked(smi)["cards"]
    words = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    assert card["total"] == int(words["MemTotal"].split()[0]) * 1024
    assert card["unified"] is True
    assert 0 < card["free"] < card["total"]


@pytest.mark.skipif(bool(nvml_cards()), reason="the driver's own library would tell here")
@pytest.mark.parametrize(
    "said",
    [
        "Failed to initialize NVML\n",
        "0, GPU-0, H100, 81559, [N/A], 5, Disabled\n",
        "2, GPU-2, H100, [Unknown Error], [Unknown Error], [Unknown Error], [N/A]\n",
        "2, GPU-2, H100, [GPU is lost], [GPU is lost], [GPU is lost], [GPU is lost]\n",
        "\n",
    ],
)
def test_what_nvidia_smi_does_not_tell_is_not_known(smi: Path, said: str) -> None:
    (smi / "gpus").write_text(EMPTY + said if said.strip() else said)
    assert asked(smi)["cards"] == []
    assert asked(None)["cards"] == []


class Nvml:
    """NVML's functions, over GPUs of (UUID, total, free), or a list of such: a GPU that is cut into MIG devices."""

    def __init__(self, *gpus: Any, refusal: int = 3) -> None:
        self.gpus, self.refusal = gpus, refusal

    def nvmlInit_v2(self) -> int:  # noqa: N802  # NVML's names
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802
        count._obj.value = len(self.gpus)
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, handle: Any) -> int:  # noqa: N802
        handle._obj.value = 1000 * (index + 1)
        return 0

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Any, count: Any) -> int:  # noqa: N802
        gpu = self.gpus[handle.value // 1000 - 1]
        count._obj.value = 7
        return 0 if isinstance(gpu, list) else 3  # NVML_ERROR_NOT_SUPPORTED

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Any, number: int, part: Any) -> int:  # noqa: N802
        if number >= len(self.gpus[handle.value // 1000 - 1]):
            return 6  # NVML_ERROR_NOT_FOUND
        part._obj.value = handle.value + number + 1
        return 0

    def _gpu(self, handle: Any) -> tuple[str, int, int]:
        gpu = self.gpus[handle.value // 1000 - 1]
        found: tuple[str, int, int] = gpu[handle.value % 1000 - 1] if isinstance(gpu, list) else gpu
        return found

    def nvmlDeviceGetUUID(self, handle: Any, buffer: Any, size: int) -> int:  # noqa: N802
        buffer.value = self._gpu(handle)[0].encode()
        return 0

    def nvmlDeviceGetName(self, handle: Any, buffer: Any, size: int) -> int:  # noqa: N802
        buffer.value = b"NVIDIA H100"
        return 0

    def nvmlDeviceGetMemoryInfo(self, handle: Any, memory: Any) -> int:  # noqa: N802
        _, memory._obj.total, memory._obj.free = self._gpu(handle)
        return 0 if memory._obj.total else self.refusal


def test_without_nvidia_smi_the_drivers_library_tells_the_same() -> None:
    found = nvml_cards(Nvml(("GPU-a", 80 * GIB, 79 * GIB), ("GPU-b", 80 * GIB, 2 * GIB)))
    assert [(card["id"], card["uuid"], card["free"]) for card in found] == [
        ("0", "GPU-a", 79 * GIB),
        ("1", "GPU-b", 2 * GIB),
    ]
    assert nvml_cards(Nvml(("GPU-a", 0, 0)))[0]["unified"] is True  # NVML_ERROR_NOT_SUPPORTED
    assert nvml_cards(Nvml(("GPU-a", 0, 0), refusal=15)) == []  # NVML_ERROR_GPU_IS_LOST


def test_of_a_gpu_that_is_cut_into_parts_each_has_its_own_memory() -> None:
    found = nvml_cards(
        Nvml([("MIG-a", 10 * GIB, 9 * GIB), ("MIG-b", 20 * GIB, 1 * GIB)], ("GPU-c", 80 * GIB, 80 * GIB))
    )
    assert [(card["id"], card["uuid"], card["total"] // GIB) for card in found] == [
        ("0:0", "MIG-a", 10),
        ("0:1", "MIG-b", 20),
        ("1", "GPU-c", 80),
    ]


@pytest.mark.skipif(bool(nvml_cards()), reason="the driver's own library would tell here")
def test_the_whole_memory_of_a_gpu_that_is_cut_into_parts_is_nobodys(smi: Path) -> None:
    (smi / "gpus").write_text(EMPTY.replace("Disabled", "Enabled"))
    assert asked(smi)["cards"] == []


def test_the_layout_of_a_memory_answer_is_nvmls() -> None:
    from vllmray.payload.probes.gpus import _Memory

    assert [name for name, *_ in _Memory._fields_] == ["total", "free", "used"]
    assert ctypes.sizeof(_Memory) == 24


@pytest.fixture
def amd(tmp_path: Path) -> tuple[str, str]:
    """A host with the graphics of its board at renderD128, and two of AMD's cards beside it."""
    dri, sysfs = tmp_path / "dri", tmp_path / "drm"
    dri.mkdir()
    for name, vendor in (("renderD128", "0x1a03"), ("renderD130", "0x1002"), ("renderD129", "0x1002")):
        (dri / name).touch()
        device = sysfs / name / "device"
        device.mkdir(parents=True)
        (device / "vendor").write_text(f"{vendor}\n")
        (device / "mem_info_vram_total").write_text(f"{192 * GIB}\n")
        (device / "mem_info_vram_used").write_text(f"{GIB}\n")
    return str(dri), str(sysfs)


def test_only_the_render_nodes_of_amds_cards_are_its_gpus(amd: tuple[str, str]) -> None:
    assert amd_nodes(*amd) == ["renderD129", "renderD130"]
    first, second = amd_cards(*amd)
    assert (first["id"], first["uuid"], second["id"]) == ("0", "renderD129", "1")
    assert (first["total"], first["free"]) == (192 * GIB, 191 * GIB)


def test_an_amd_card_whose_memory_can_not_be_told_leaves_all_unknown(amd: tuple[str, str]) -> None:
    Path(amd[1], "renderD129/device/mem_info_vram_used").unlink()
    assert amd_cards(*amd) == []


def test_what_a_processors_own_graphics_can_take_of_the_hosts_memory_is_not_known(amd: tuple[str, str]) -> None:
    Path(amd[1], "renderD130/device/mem_info_vram_total").write_text(f"{512 * MIB}\n")
    assert amd_cards(*amd) == []


@pytest.mark.parametrize(
    ("rocr", "hip", "left"),
    [(None, "0,1", ["0", "1"]), ("2,3", None, ["2", "3"]), ("2,3", "1", ["3"]), ("2,3", "", []), (None, "-1", [])],
)
def test_hip_counts_what_rocr_leaves(
    monkeypatch: pytest.MonkeyPatch, rocr: str | None, hip: str | None, left: list[str]
) -> None:
    for name, value in (("ROCR_VISIBLE_DEVICES", rocr), ("HIP_VISIBLE_DEVICES", hip)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert visible("amd") == left
    assert gpus("amd") == len(left)


def test_the_files_of_a_host_are_told_as_it_calls_them_with_the_group_of_amds(
    amd: tuple[str, str], tmp_path: Path
) -> None:
    for name in ("nvidia0", "nvidiactl", "dxg", "null", "kfd"):
        (tmp_path / name).touch()
    assert device_files("nvidia", str(tmp_path)) == ["/dev/dxg", "/dev/nvidia0", "/dev/nvidiactl"]
    found = device_files("amd", str(tmp_path), amd[1])
    assert found[:3] == ["/dev/kfd", "/dev/dri/renderD129", "/dev/dri/renderD130"]
    group = (tmp_path / "kfd").stat().st_gid
    assert found[3:] == ([f"gid={group}"] if group else [])  # root's group gives nothing that others lack
    (tmp_path / "kfd").unlink()
    assert device_files("amd", str(tmp_path), amd[1]) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files to a group")
def test_the_groups_of_an_amd_hosts_files_are_numbers_of_the_host(amd: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "kfd").touch()
    os.chown(tmp_path / "kfd", 0, 109)
    os.chown(tmp_path / "dri/renderD130", 0, 44)
    assert device_files("amd", str(tmp_path), amd[1])[3:] == ["gid=44", "gid=109"]


@pytest.fixture
def host(tmp_path: Path, smi: Path) -> Iterator[NativeHost]:
    made = NativeHost(tmp_path / "state", dict(os.environ) | {"PATH": f"{smi}:{os.environ['PATH']}"})
    yield made
    assert made.containers({}) == []


def native(**fields: Any) -> Any:
    return config(accelerator="nvidia", runtime="native", image=sys.executable, **fields)


def test_a_native_node_is_told_which_real_process_fills_its_gpu(host: NativeHost, smi: Path) -> None:
    (smi / "gpus").write_text(EMPTY + FULL)
    with subprocess.Popen([sys.executable, "-c", "input()", "--password=hunter2"], stdin=subprocess.PIPE) as another:
        (smi / "processes").write_text(f"GPU-11, {another.pid}, 75990, /usr/bin/python3\nGPU-00, 1, 5, [Not Found]\n")
        cards = cards_in([json.dumps(asked(smi))])
        with pytest.raises(HostError, match="too little free memory on GPU 1: 4") as caught:
            Room(host, native(), 2).check(cards, ())
        another.communicate(b"\n")
    user, program = pwd.getpwuid(os.getuid()).pw_name, Path(sys.executable).name
    assert (caught.value.details or "").splitlines()[1:] == [
        f"  pid {another.pid}, user {user}, {program}, 75990 MiB",
    ]


def test_a_native_plan_sees_only_the_gpus_that_the_environment_leaves(smi: Path, tmp_path: Path) -> None:
    (smi / "gpus").write_text(EMPTY + FULL)
    environ = dict(os.environ) | {"PATH": f"{smi}:{os.environ['PATH']}", "CUDA_VISIBLE_DEVICES": "1"}
    found = gpus_of(NativeHost(tmp_path / "state", environ), native(), RecordingReporter())
    assert found.memory == (81008 * MIB,)
