"""What engines leave behind, with real processes."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from vllmray.payload.engine.remains import Remains, kill_below

# In a process of its own, since it makes itself the reaper of orphans, and kills every child but one.
SWEEP = """
import subprocess
from contextlib import suppress
from pathlib import Path
from vllmray.payload.engine.remains import Remains
remains = Remains(Path("/nowhere"), None)
spared = subprocess.Popen(["sleep", "1001"])
script = "sleep 1002 & setsid sh -c 'sleep 1003 & echo runs; exec sleep 1004' & wait"
parent = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE)
parent.stdout.readline()
parent.kill(); parent.wait()
print(remains.sweep(spare=spared.pid), spared.poll(), flush=True)
found = []
for path in Path("/proc").glob("[0-9]*/cmdline"):
    with suppress(OSError):
        found.append(path.read_bytes())
print([f"sleep {n}" for n in (1001, 1002, 1003, 1004) if f"sleep\\0{n}\\0".encode() in found], flush=True)
spared.kill(); spared.wait()
"""


def test_orphans_at_any_depth_are_killed_and_one_is_spared() -> None:
    done = subprocess.run([sys.executable, "-c", SWEEP], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.splitlines() == ["[] None", "['sleep 1001']"], done.stderr


def test_what_a_process_started_is_killed_but_not_the_process() -> None:
    pipe = subprocess.PIPE
    script = "sleep 1005 & echo runs; wait; echo gone; read _"
    parent = subprocess.Popen(["sh", "-c", script], stdin=pipe, stdout=pipe, text=True)
    assert parent.stdout
    assert parent.stdout.readline() == "runs\n"
    kill_below(parent.pid)
    assert parent.stdout.readline() == "gone\n"
    assert parent.poll() is None
    children = subprocess.run(["pgrep", "-P", str(parent.pid)], capture_output=True, text=True, check=False).stdout
    assert children == ""
    parent.kill()
    parent.communicate()


@pytest.mark.parametrize("own", [True, False])
def test_memory_goes_only_where_it_is_the_cluster_s_own_and_sockets_go(tmp_path: Path, own: bool) -> None:
    memory, folder = tmp_path / "shm", tmp_path / "ray"
    memory.mkdir()
    folder.mkdir()
    (memory / "psm_1").write_bytes(b"x")
    (folder / "session").mkdir()
    (folder / "file").touch()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(folder / "socket"))
    Remains(folder, memory if own else None).clear()
    assert [path.name for path in memory.iterdir()] == ([] if own else ["psm_1"])
    assert {path.name for path in folder.iterdir()} == {"file", "session"}


def test_a_folder_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    Remains(tmp_path / "none", None).clear()
    assert list(tmp_path.iterdir()) == []
