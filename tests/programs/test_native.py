"""Nodes as processes of this machine, with small programs in the place of Ray: what is ended, and what is not."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from vllmray.errors import ConfigError, HostError
from vllmray.hosts.base import Container, ContainerSpec, File, GpuRequest, Mount
from vllmray.hosts.native.host import NativeHost
from vllmray.hosts.native.processes import SHM, identify, living
from vllmray.hosts.native.records import FORMAT, NodeFolder, Records
from vllmray.payload.journal import parse

LABELS = {"io.vllmray.cluster": "programs"}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def host(state: Path) -> Iterator[NativeHost]:
    made = NativeHost(state, os.environ)
    yield made
    for container in made.containers({}):
        made.stop_and_remove(container.id, timeout=0)
    made.prune({})


def spec(*argv: str, name: str = "node", **fields: Any) -> ContainerSpec:
    return ContainerSpec(name=name, image=sys.executable, argv=argv, labels=LABELS, **fields)


def python(code: str, **fields: Any) -> ContainerSpec:
    return spec("python3", "-c", code, **fields)


def folder(state: Path, name: str = "node") -> NodeFolder:
    (root,) = (state / "native").iterdir()
    return NodeFolder(root / "nodes" / name)


def wait_for(condition: Callable[[], Any], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def said(host: NativeHost, container: Container, lines: int) -> list[int]:
    """The numbers that a node has printed so far, once there are that many."""
    wait_for(lambda: len(list(host.logs(container.id))) >= lines)
    return [int(line) for line in host.logs(container.id)]


# A child that stays, one that left the session, and one whose environment a title has overwritten, as Ray's have.
FAMILY = """
import ctypes, os, subprocess, sys, time
stays = subprocess.Popen(["sleep", "600"])
left = subprocess.Popen(["sleep", "600"], start_new_session=True)
bare = subprocess.Popen(["sleep", "600"], env={})
print(os.getpid(), stays.pid, left.pid, bare.pid, sep="\\n", flush=True)
time.sleep(600)
"""


def test_removing_a_node_ends_all_that_it_started_and_its_supervisor(host: NativeHost, state: Path) -> None:
    container = host.create_and_start(python(FAMILY))
    family = said(host, container, 4)
    supervisor = folder(state).state().supervisor
    assert supervisor is not None
    host.stop_and_remove(container.id, timeout=5)
    assert [pid for pid in (*family, supervisor.pid) if runs(pid)] == []
    assert host.containers({}) == []


def test_a_dead_supervisor_or_a_dead_leader_hides_nothing_from_removal(host: NativeHost, state: Path) -> None:
    container = host.create_and_start(python(FAMILY, restart="unless-stopped"))
    family = said(host, container, 4)
    supervisor = folder(state).state().supervisor
    assert supervisor is not None
    os.kill(supervisor.pid, signal.SIGKILL)
    wait_for(lambda: not runs(supervisor.pid))
    assert host.containers({})[0].status == "running"
    os.kill(family[0], signal.SIGKILL)
    wait_for(lambda: not runs(family[0]))
    assert host.containers({})[0].status == "exited"
    host.stop_and_remove(container.id, timeout=5)
    assert [pid for pid in family if runs(pid)] == []


def test_the_end_of_the_nodes_own_process_ends_the_rest_of_it(host: NativeHost) -> None:
    container = host.create_and_start(python(FAMILY))
    family = said(host, container, 4)
    os.kill(family[0], signal.SIGKILL)
    wait_for(lambda: host.containers({})[0].status == "exited")
    assert host.containers({})[0].exit_code == 128 + signal.SIGKILL
    assert [pid for pid in family if runs(pid)] == []


# Its first thread ends (exit(2), not exit_group(2)), which makes it a zombie, and another goes on with its socket.
HEADLESS = """
import ctypes, platform, socket, threading, time
server = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=time.sleep, args=(600,)).start()
print(server.getsockname()[1], flush=True)
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[platform.machine()], 0)
"""


@pytest.mark.parametrize("supervised", [True, False])
def test_a_zombie_whose_threads_go_on_is_ended_before_removal_returns(
    host: NativeHost, state: Path, supervised: bool
) -> None:
    container = host.create_and_start(python(HEADLESS))
    (port,) = said(host, container, 1)
    main, supervisor = folder(state).state().main, folder(state).state().supervisor
    assert main is not None
    assert supervisor is not None
    wait_for(lambda: psutil.Process(main.pid).status() == psutil.STATUS_ZOMBIE)
    if not supervised:
        os.kill(supervisor.pid, signal.SIGKILL)
        wait_for(lambda: not runs(supervisor.pid))
    assert host.containers({})[0].status == "running"
    host.stop_and_remove(container.id, timeout=1)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_a_foreign_process_with_a_recycled_pid_survives_removal(host: NativeHost, state: Path) -> None:
    container = host.create_and_start(spec("true"))
    wait_for(lambda: host.containers({})[0].status == "exited")
    foreign = subprocess.Popen(
        ["sh", "-c", "sleep 600 & echo $!; wait"], start_new_session=True, stdout=subprocess.PIPE
    )
    try:
        assert foreign.stdout is not None
        child = int(foreign.stdout.readline())
        # As if both of ours had ended long ago, and their number had come round again.
        long_ago = replace(identify(foreign.pid), started=1.0)
        there = folder(state)
        there.write_state(there.state().becoming(status="running", main=long_ago, supervisor=long_ago))
        assert host.containers({})[0].status == "exited"
        host.stop_and_remove(container.id, timeout=0)
        assert foreign.poll() is None
        assert runs(child)
        assert host.containers({}) == []
    finally:
        os.killpg(foreign.pid, signal.SIGKILL)
        foreign.communicate()


def test_a_process_is_known_again_after_the_clock_was_set_and_not_after_a_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    known = identify(os.getpid())
    assert living(known)
    later = psutil.boot_time() + 3600  # the clock was set an hour forward: by it, the boot was an hour later
    monkeypatch.setattr(psutil, "boot_time", lambda: later)
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: known.started + later)
    assert living(known)
    assert living(replace(known, boot="another")) is None
    assert living(replace(known, started=known.started + 1)) is None


def test_a_node_is_restarted_with_a_doubling_pause_until_it_is_removed(host: NativeHost, tmp_path: Path) -> None:
    times = tmp_path / "times"
    container = host.create_and_start(spec("sh", "-c", f"date +%s.%N >> {times}; exit 3", restart="unless-stopped"))
    wait_for(lambda: times.exists() and len(times.read_text().split()) >= 5)
    starts = [float(line) for line in times.read_text().split()[:5]]
    pauses = [later - earlier for earlier, later in itertools.pairwise(starts)]
    for pause, least in zip(pauses, (0.1, 0.2, 0.4, 0.8), strict=True):
        assert least <= pause < least + 2
    assert host.containers({})[0].exit_code == 3
    host.stop_and_remove(container.id, timeout=0)
    count = len(times.read_text().split())
    time.sleep(2)
    assert len(times.read_text().split()) == count


SEGMENT = """
import time
from multiprocessing import resource_tracker, shared_memory
ours = shared_memory.SharedMemory(create=True, size=4096)
resource_tracker.unregister(ours._name, "shared_memory")
print(ours.name, flush=True)
time.sleep(600)
"""


def test_shared_memory_of_a_node_goes_with_it_and_that_of_others_stays(host: NativeHost, state: Path) -> None:
    foreign = SHM / f"psm_{os.getpid()}"
    foreign.write_bytes(b"x")
    try:
        container = host.create_and_start(python(SEGMENT))
        wait_for(lambda: len(list(host.logs(container.id))) == 1)
        (name,) = host.logs(container.id)
        later = SHM / f"psm_{os.getpid()}_later"
        later.write_bytes(b"x")
        wait_for(lambda: name in folder(state).shared_memory().held)
        main = folder(state).state().main
        assert main is not None
        os.kill(main.pid, signal.SIGKILL)
        wait_for(lambda: host.containers({})[0].status == "exited")
        assert not (SHM / name).exists()
        host.stop_and_remove(container.id, timeout=0)
        assert foreign.exists()
        assert later.exists()
    finally:
        for path in SHM.glob(f"psm_{os.getpid()}*"):
            path.unlink()


def test_a_node_has_the_environment_of_a_container_and_not_the_users(state: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "HOME": "/home/someone", "HF_TOKEN": "hf_secret", "HTTPS_PROXY": "http://p"}
    host = NativeHost(state, environ)
    container = host.create_and_start(spec("env", env={"OURS": "1"}))
    lines = dict(line.split("=", 1) for line in host.logs(container.id, follow=True))
    assert (lines["HOME"], lines["OURS"], lines["HTTPS_PROXY"]) == ("/home/someone", "1", "http://p")
    assert lines["PATH"].startswith(str(Path(sys.executable).parent))
    assert "HF_TOKEN" not in lines
    host.stop_and_remove(container.id, timeout=0)


@pytest.mark.parametrize(
    ("gpus", "given", "seen"),
    [
        (GpuRequest("nvidia", count=-1), None, None),
        (GpuRequest("nvidia", count=-1), "2,3", "2,3"),
        (GpuRequest("nvidia", count=1), "2,3", "2"),
        (GpuRequest("nvidia", count=2), None, "0,1"),
        (GpuRequest("nvidia", device_ids=("1", "3")), "2,3", "1,3"),
        (GpuRequest("nvidia", count=2), "NoDevFiles", ""),
        (GpuRequest("nvidia", count=2), "-1", ""),
        (GpuRequest("nvidia", count=2), "", ""),
        (GpuRequest("nvidia", count=2), "3", "3"),
    ],
)
def test_a_node_sees_the_gpus_that_it_was_given(
    state: Path, gpus: GpuRequest, given: str | None, seen: str | None
) -> None:
    environ = {"PATH": os.environ["PATH"]} | ({} if given is None else {"CUDA_VISIBLE_DEVICES": given})
    host = NativeHost(state, environ)
    container = host.create_and_start(spec("printenv", "CUDA_VISIBLE_DEVICES", gpus=gpus))
    assert list(host.logs(container.id, follow=True)) == ([] if seen is None else [seen])
    host.stop_and_remove(container.id, timeout=0)


@pytest.mark.parametrize(
    ("gpus", "given", "seen"),
    [
        (GpuRequest("amd", count=-1), {}, {}),
        (GpuRequest("amd", count=2), {}, {"HIP": "0,1"}),
        (GpuRequest("amd", device_ids=("0", "2")), {}, {"HIP": "0,2"}),
        (GpuRequest("amd", device_ids=("0", "2")), {"ROCR": "4,5"}, {"ROCR": "0,2", "HIP": "0,1"}),
        (GpuRequest("amd", count=-1), {"ROCR": "4,5"}, {"ROCR": "4,5", "HIP": "0,1"}),
        (GpuRequest("amd", count=1), {"ROCR": "4,5"}, {"ROCR": "4,5", "HIP": "0"}),
        (GpuRequest("amd", count=1), {"HIP": "6,7"}, {"HIP": "6"}),
        (GpuRequest("amd", count=1), {"HIP": ""}, {"HIP": ""}),
    ],
)
def test_an_amd_node_sees_the_cards_that_it_was_given_in_the_variable_that_ray_reads(
    state: Path, gpus: GpuRequest, given: dict[str, str], seen: dict[str, str]
) -> None:
    environ = {"PATH": os.environ["PATH"]} | {f"{name}_VISIBLE_DEVICES": value for name, value in given.items()}
    host = NativeHost(state, environ)
    container = host.create_and_start(spec("env", gpus=gpus))
    found = dict(line.split("=", 1) for line in host.logs(container.id, follow=True))
    kept = {name.partition("_")[0]: value for name, value in found.items() if name.endswith("_VISIBLE_DEVICES")}
    assert kept == seen
    host.stop_and_remove(container.id, timeout=0)


def test_paths_of_a_container_are_paths_of_this_machine(host: NativeHost, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    mounts = (Mount("bind", str(data), "/data"), Mount("memory", "shared", "/tmp/ray"))
    files = (File("/vllmray/a/one.txt", b"one\n"),)
    script = "cat /vllmray/a/one.txt; echo two > /tmp/ray/two.txt; echo three > $PLACE/three.txt; ls /vllmray"
    container = host.create_and_start(spec("sh", "-c", script, files=files, mounts=mounts, env={"PLACE": "/data"}))
    assert list(host.logs(container.id, follow=True)) == ["one", "a"]
    assert (data / "three.txt").read_text() == "three\n"
    other = host.create_and_start(spec("cat", "/tmp/ray/two.txt", name="other", mounts=mounts))
    assert list(host.logs(other.id, follow=True)) == ["two"]


def test_a_secret_file_is_readable_by_its_user_alone(host: NativeHost, state: Path) -> None:
    host.create_and_start(spec("sleep", "600", files=(File("/vllmray/secrets/token", b"t", mode=0o600, secret=True),)))
    there = folder(state).files / "vllmray/secrets/token"
    assert there.stat().st_mode & 0o777 == 0o600
    assert folder(state).path.stat().st_mode & 0o077 == 0


def test_no_state_folder_is_no_nodes_and_no_folder_is_made(host: NativeHost, state: Path) -> None:
    host.ping()
    assert host.containers({}) == []
    assert host.prune({}) == []
    assert not state.exists()


def test_a_state_folder_that_can_not_be_written_is_an_error_that_names_it() -> None:
    host = NativeHost(Path("/proc/nowhere"), os.environ)
    assert host.containers({}) == []
    with pytest.raises(HostError, match="can't write to /proc/nowhere") as caught:
        host.create_and_start(spec("true"))
    assert "XDG_STATE_HOME" in str(caught.value.hint)


def test_a_state_folder_that_is_a_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="can't be used"):
        NativeHost(tmp_path / "file", os.environ).containers({})


@pytest.mark.parametrize("older", ["0", None])
def test_nodes_of_another_version_are_an_error_and_stay_as_they_are(
    host: NativeHost, state: Path, older: str | None
) -> None:
    host.create_and_start(spec("sleep", "600"))
    mark = folder(state).path.parents[1] / "format"
    mark.write_text(older) if older else mark.unlink()
    before = sorted(str(path) for path in state.rglob("*"))
    for act in (lambda: host.containers({}), lambda: host.prune({}), lambda: host.create_and_start(spec("true"))):
        with pytest.raises(HostError, match="another version"):
            act()
    assert sorted(str(path) for path in state.rglob("*")) == before
    mark.write_text(FORMAT)
    assert host.containers({})[0].status == "running"


def test_a_node_is_seen_whole_or_not_at_all(state: Path) -> None:
    records = Records(state, "here")

    def draft() -> NodeFolder:
        made = records.draft()
        made.log.write_text("something")
        return made

    first = draft()
    assert list(records.nodes()) == []
    published = records.publish(first, "node")
    assert published is not None
    assert [found.path.name for found in records.nodes()] == ["node"]
    assert records.publish(draft(), "node") is None
    published.remove()
    assert list(records.nodes()) == []
    assert records.publish(draft(), "node") is not None


def test_many_who_begin_and_look_at_once_see_one_layout(state: Path) -> None:
    def begin(number: int) -> int:
        records = Records(state, "here")
        draft = records.draft()
        draft.log.write_text("something")
        records.publish(draft, f"node-{number}")
        return len(list(Records(state, "here").nodes()))

    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(begin, range(40)))
    assert max(counts) == 40


def test_a_folder_of_ours_below_tmp_that_is_somebody_elses_is_not_used(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vllmray.hosts.native.host.SHORT_FOLDERS", tmp_path)
    (tmp_path / f"vllmray-{os.getuid()}").mkdir(mode=0o777)
    (tmp_path / f"vllmray-{os.getuid()}").chmod(0o777)
    host = NativeHost(state, os.environ)
    with pytest.raises(HostError, match="is not private to you"):
        host.create_and_start(spec("true", mounts=(Mount("memory", "shared", "/tmp/ray"),)))
    assert host.containers({}) == []


SECOND_USER = """
import os, sys, time
from pathlib import Path
from vllmray.hosts.base import ContainerSpec
from vllmray.hosts.native.host import NativeHost
from vllmray.payload.journal import parse
host = NativeHost(Path(sys.argv[1]), os.environ)
node = ContainerSpec(name="node", image=sys.executable, argv=("sleep", "600"), labels={"io.vllmray.cluster": "theirs"})
if sys.argv[2] == "start":
    host.create_and_start(node)
if sys.argv[2] == "stop":
    for container in host.containers({}):
        host.stop_and_remove(container.id, timeout=0)
print(*(container.status for container in host.containers({})))
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act as two users")
def test_nodes_of_a_second_user_are_left_alone(host: NativeHost) -> None:
    with tempfile.TemporaryDirectory() as home:
        Path(home).chmod(0o755)
        packages = Path(home) / "packages"
        for module in ("vllmray", "psutil"):
            found = Path(str(sys.modules[module].__file__)).parent
            shutil.copytree(found, packages / module)
        theirs = Path(home) / "theirs"
        theirs.mkdir()
        os.chown(theirs, 65534, 65534)
        # A Python that any user may run, of the same version; ours may lie in root's own folder.
        env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(packages)}
        argv = ["/usr/bin/python3", "-c", SECOND_USER, str(theirs / "state")]

        def second_user(what: str) -> str:
            done = subprocess.run(
                [*argv, what],
                user=65534,
                group=65534,
                extra_groups=[],
                env=env,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            return done.stdout.strip()

        assert second_user("start") == "running"
        try:
            ours = host.create_and_start(spec("sleep", "600"))
            host.stop_and_remove(ours.id, timeout=0)
            host.prune({})
            assert second_user("look") == "running"
            # Not even with their state folder in hand does root take up what belongs to another user.
            with pytest.raises(ConfigError, match="belongs to another user"):
                NativeHost(theirs / "state", os.environ).containers({})
            assert second_user("look") == "running"
        finally:
            assert second_user("stop") == ""


def test_what_the_supervisor_says_can_be_read_at_any_time(host: NativeHost, state: Path) -> None:
    host.create_and_start(spec("sh", "-c", "exit 1", restart="unless-stopped"))
    there = folder(state)
    for _ in range(300):
        assert json.loads((there.path / "state.json").read_text())["status"] in ("created", "running", "restarting")


def test_records_that_others_could_have_written_or_that_lie_elsewhere_are_not_read(
    host: NativeHost, state: Path
) -> None:
    host.create_and_start(ContainerSpec(name="sleeper", image=sys.executable, argv=("sleep", "60"), labels=LABELS))
    nodes = next(state.glob("native/*/nodes"))
    nodes.chmod(0o777)
    with pytest.raises(ConfigError, match="can be written by others"):
        host.containers(LABELS)
    nodes.chmod(0o700)
    elsewhere = state / "elsewhere"
    nodes.rename(elsewhere)
    nodes.symlink_to(elsewhere)
    with pytest.raises(ConfigError, match="is a symbolic link"):
        host.containers(LABELS)
    nodes.unlink()
    elsewhere.rename(nodes)
    assert [node.name for node in host.containers(LABELS)] == ["sleeper"]


def journal(host: NativeHost, container: Container) -> list[str]:
    entries = [parse(line) for line in host.logs(container.id)]
    return [f"{entry.kind}: {entry.text}" for entry in entries if entry]


def test_what_a_supervisor_does_stands_in_the_log_on_lines_of_their_own(host: NativeHost) -> None:
    container = host.create_and_start(spec("sh", "-c", "printf half; exit 3", restart="unless-stopped"))
    wait_for(lambda: len(journal(host, container)) >= 4)
    assert journal(host, container)[:4] == [
        "exited: exit code 3; starting it again in 0.1 s",
        "restarted: by its supervisor, restart 1",
        "exited: exit code 3; starting it again in 0.2 s",
        "restarted: by its supervisor, restart 2",
    ]
    lines = list(host.logs(container.id))
    assert (lines[0], lines[3]) == ("half", "half")


def test_a_signal_is_named_in_the_log_and_a_command_too(host: NativeHost, state: Path) -> None:
    container = host.create_and_start(spec("sleep", "600", restart="unless-stopped"))
    main = folder(state).state().main
    assert main is not None
    os.kill(main.pid, signal.SIGKILL)
    wait_for(lambda: host.containers({})[0].restarts == 1 and host.containers({})[0].status == "running")
    host.restart(container.id, timeout=5)
    assert journal(host, container) == [
        "exited: exit code 137 (SIGKILL); starting it again in 0.1 s",
        "restarted: by its supervisor, restart 1",
        "exited: exit code 143 (SIGTERM); starting it again now",
        "restarted: by a command",
    ]


def test_a_node_that_only_answers_has_nothing_but_its_answer_in_its_log(host: NativeHost) -> None:
    container = host.create_and_start(spec("echo", "answer"))
    wait_for(lambda: host.containers({})[0].status == "exited")
    host.restart(container.id, timeout=5)
    wait_for(lambda: len(list(host.logs(container.id))) >= 2)
    assert list(host.logs(container.id)) == ["answer", "answer"]


@pytest.mark.parametrize("parts", [("supervisor",), ("main",), ("supervisor", "main")])
def test_a_node_is_restarted_with_all_that_it_started_whatever_of_it_is_gone(
    host: NativeHost, state: Path, parts: tuple[str, ...]
) -> None:
    container = host.create_and_start(python(FAMILY))
    family = said(host, container, 4)
    before = folder(state).state()
    pids = [getattr(before, part).pid for part in parts]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not [pid for pid in pids if runs(pid)])
    host.restart(container.id, timeout=5)
    wait_for(lambda: len(list(host.logs(container.id))) == 8)
    assert [pid for pid in family if runs(pid)] == []
    (after,) = host.containers({})
    assert (after.id, after.status) == (container.id, "running")
    again = folder(state).state()
    assert living(again.supervisor)
    assert again.main != before.main


def test_a_restarted_node_keeps_its_policy_and_its_supervisor(host: NativeHost, state: Path) -> None:
    container = host.create_and_start(spec("sleep", "600", restart="unless-stopped"))
    supervisor = folder(state).state().supervisor
    host.restart(container.id, timeout=5)
    state_now = folder(state).state()
    assert (state_now.supervisor, state_now.restarts) == (supervisor, 0)
    assert state_now.main is not None
    os.kill(state_now.main.pid, signal.SIGKILL)
    wait_for(lambda: host.containers({})[0].restarts == 1 and host.containers({})[0].status == "running")


def test_a_node_whose_program_is_gone_is_an_error_when_it_is_restarted(
    host: NativeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vllmray.hosts.native.restart.STARTING_S", 1.0)
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    container = host.create_and_start(spec(str(program), restart="unless-stopped"))
    program.unlink()
    with pytest.raises(HostError, match="node did not start again within 1 s") as caught:
        host.restart(container.id, timeout=1)
    assert "log" in str(caught.value.hint)
