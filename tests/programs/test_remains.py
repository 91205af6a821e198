"""What engines leave behind, with real processes."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vllmray.engine.remains import Remains, kill_below

# In a process of its own, since it makes itself the reaper of orphans, and kills every child but one.
SWEEP = """
import os, subprocess, sys, time
from pathlib import Path
from vllmray.engine.remains import Remains
remains = Remains(Path("/nowhere"), None)
spared = subprocess.Popen(["sleep", "1001"])
parent = subprocess.Popen(["sh", "-c", "sleep 1002 & setsid sh -c 'sleep 1003 & sleep 1004' & wait"])
time.sleep(0.3)
parent.kill(); parent.wait()
before = sorted(int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if b"sleep" in path.read_bytes())
print(remains.sweep(spare=spared.pid), spared.poll(), flush=True)
print([path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")
       if path.read_bytes() in (b"sleep\\x001002\\x00", b"sleep\\x001003\\x00", b"sleep\\x001004\\x00")], flush=True)
spared.kill(); spared.wait()
"""


def test_orphans_at_any_depth_are_killed_and_one_is_spared() -> None:
    done = subprocess.run([sys.executable, "-c", SWEEP], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.splitlines() == ["[] None", "[]"], done.stderr


def test_what_a_process_started_is_killed_but_not_the_process() -> None:
    parent = subprocess.Popen(["sh", "-c", "sleep 1005 & wait; read _"], stdin=subprocess.PIPE)
    time.sleep(0.3)
    kill_below(parent.pid)
    time.sleep(0.3)
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
