"""The faults: each a block during which it lasts, and what is expected of the cluster."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.faults import processes
from tests.faults.cluster import Cluster
from tests.faults.processes import ACTOR, CORE, GCS, HOG, MAIN, RAYLET, SERVER, power_off, send
from tests.rig import cable, wallclock
from tests.rig.hosts import TestHost

Block = Callable[[Cluster], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Fault:
    """One row of the matrix."""

    name: str
    block: Block
    lasts: float = 0.0
    """Seconds."""
    outage: bool = True
    """Whether the endpoint is expected to be away; without one it may be for as long as the fault lasts."""
    by_hand: tuple[int, tuple[str, ...]] | None = None
    """Where it can't heal by itself: the host and the command that a person types there."""
    why: str = ""
    """Why not."""
    quick: bool = False
    """Part of the everyday run."""


def host_of(cluster: Cluster, place: str) -> TestHost:
    return cluster.worker if place == "worker" else cluster.head


def at_once(act: Callable[[Cluster], object]) -> Block:
    """A fault that is over when it has happened."""

    @contextmanager
    def block(cluster: Cluster) -> Iterator[None]:
        act(cluster)
        yield

    return block


def both(*blocks: Block) -> Block:
    """One within the other."""

    @contextmanager
    def block(cluster: Cluster) -> Iterator[None]:
        with ExitStack() as stack:
            for each in blocks:
                stack.enter_context(each(cluster))
            yield

    return block


def signalled(place: str, role: str, name: object, number: signal.Signals) -> Block:
    return at_once(lambda cluster: send(host_of(cluster, place), role, name, number))  # type: ignore[arg-type]


def frozen(place: str, role: str) -> Block:
    """The container's main process and its init stopped, and let go."""

    @contextmanager
    def block(cluster: Cluster) -> Iterator[None]:
        host = host_of(cluster, place)
        pids = [processes.main_process(host, role), *processes.find(host, role, MAIN)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
        for pid in pids:
            if Path(f"/proc/{pid}").exists():
                os.kill(pid, signal.SIGCONT)

    return block


def killed(place: str, role: str) -> Block:
    return at_once(lambda cluster: os.kill(processes.main_process(host_of(cluster, place), role), signal.SIGKILL))


def docker(place: str, *argv: str) -> Block:
    return at_once(lambda cluster: host_of(cluster, place).docker(*argv))


def daemon_restarted(place: str) -> Block:
    @contextmanager
    def block(cluster: Cluster) -> Iterator[None]:
        host_of(cluster, place).stop_daemon()
        yield
        host_of(cluster, place).start_daemon()

    return block


def powered_off(*places: str, on: tuple[str, ...] = (), apart_s: float = 0.0) -> Block:
    """Everything gone at once; then on again, in that order (by default as they went)."""

    @contextmanager
    def block(cluster: Cluster) -> Iterator[None]:
        for place in places:
            power_off(host_of(cluster, place))
        yield
        for place in on or places:
            host_of(cluster, place).start_daemon()
            time.sleep(apart_s)

    return block


def shell(cluster: Cluster, place: str, role: str, script: str) -> None:
    host_of(cluster, place).docker("exec", f"vllmray-{role}", "sh", "-c", script, check=False)


def full(place: str, folder: str) -> Block:
    """Every byte of a file system taken from inside the container, and given back if the file is still there."""

    @contextmanager
    def block(cluster: Cluster) -> Iterator[None]:
        fill = "dd if=/dev/zero of={0}/junk bs=1M; dd if=/dev/zero of={0}/junk.rest bs=1k"
        shell(cluster, place, place, fill.format(folder))
        yield
        shell(cluster, place, place, f"rm -f {folder}/junk {folder}/junk.rest")

    return block


def server_killed(cluster: Cluster) -> None:
    send(cluster.head, "engine", SERVER, signal.SIGKILL)


def out_of_memory(place: str, role: str) -> Block:
    """A limit below what the container then asks for, so that the kernel kills in it; then both are gone again."""
    name = f"vllmray-{role}"
    hog = "import time; blocks = []\nwhile True: blocks.append(bytearray(8 << 20)); time.sleep(0.02)"

    @contextmanager
    def block(cluster: Cluster) -> Iterator[None]:
        host = host_of(cluster, place)
        group = Path("/sys/fs/cgroup/memory/docker") / host.docker("inspect", "--format", "{{.Id}}", name).strip()
        before, used = _kernel_kills(group), int((group / "memory.usage_in_bytes").read_text())
        host.docker("update", "--memory", str(used + 32 * 1024**2), "--memory-swap", "-1", name)
        host.docker("exec", "--detach", name, "python3", "-c", hog)
        deadline = time.monotonic() + 60
        while _kernel_kills(group) == before and time.monotonic() < deadline:
            time.sleep(0.2)
        assert _kernel_kills(group) != before, "the kernel killed nothing"
        yield
        for pid in processes.find(host, role, HOG):  # the kernel may have chosen another
            os.kill(pid, signal.SIGKILL)
        host.docker("update", "--memory", "20g", "--memory-swap", "-1", name)

    return block


def _kernel_kills(group: Path) -> str:
    """How often the kernel killed in a memory group; one that is gone was killed whole."""
    try:
        lines = (group / "memory.oom_control").read_text().splitlines()
    except OSError:
        return "gone"
    return next(line for line in lines if line.startswith("oom_kill "))


@contextmanager
def model_away(cluster: Cluster) -> Iterator[None]:
    """The model's files out of their folder, and back; the folder itself is mounted, and stays."""
    model, aside = cluster.rig.model, cluster.rig.model.with_name("aside")
    aside.mkdir(exist_ok=True)
    for path in list(model.iterdir()):
        path.rename(aside / path.name)
    try:
        server_killed(cluster)
        yield
    finally:
        for path in list(aside.iterdir()):
            path.rename(model / path.name)
        aside.rmdir()


def clock_jumped(place: str, seconds: int) -> Block:
    """The wall clock of all of the host's containers, there and back."""

    @contextmanager
    def block(cluster: Cluster) -> Iterator[None]:
        clock = cluster.user_folder(host_of(cluster, place).number) / "clock"
        wallclock.jump(clock, seconds)
        yield
        wallclock.jump(clock, 0)

    return block


def no_names(place: str) -> Block:
    """A name server that does not exist, in all of the host's containers."""

    @contextmanager
    def block(cluster: Cluster) -> Iterator[None]:
        host = host_of(cluster, place)
        names = host.docker("ps", "--quiet").split()
        paths = [Path(host.docker("inspect", "--format", "{{.ResolvConfPath}}", name).strip()) for name in names]
        kept = {path: path.read_text() for path in paths}
        for path in paths:
            path.write_text("nameserver 10.78.0.99\n")
        yield
        for path, text in kept.items():
            if path.exists():
                path.write_text(text)

    return block


def on_cable(act: Callable[..., AbstractContextManager[object]], place: str, **options: object) -> Block:
    return lambda cluster: act(host_of(cluster, place).number, **options)


@contextmanager
def _cut(number: int) -> Iterator[None]:
    cable.cut(number)
    try:
        yield
    finally:
        cable.mend(number)


REMOVED = "a person removed the container, and Docker does not make it again"
STOPPED = "a person stopped the container, and Docker leaves it stopped"
UP_WORKER = (2, ("up", "--role", "worker", "--head-ip", "10.78.0.1"))


def _containers() -> Iterator[Fault]:
    for place, role in (("head", "head"), ("worker", "worker"), ("head", "engine")):
        yield Fault(f"{role}: container killed (SIGKILL of its first process)", killed(place, role))
        yield Fault(f"{role}: main process stopped (SIGSTOP) for 60 s", frozen(place, role), lasts=60, outage=False)
        yield Fault(f"{role}: `docker restart` by hand", docker(place, "restart", f"vllmray-{role}"))
        yield Fault(f"{role}: out of memory, killed by the kernel", out_of_memory(place, role), lasts=5)
        restart = (2 if place == "worker" else 1, ("restart", role))
        yield Fault(
            f"{role}: `docker stop` by hand", docker(place, "stop", f"vllmray-{role}"), by_hand=restart, why=STOPPED
        )


def _removed() -> Iterator[Fault]:
    for place, role in (("head", "head"), ("worker", "worker"), ("head", "engine")):
        up = UP_WORKER if place == "worker" else (1, ("up", "--role", "head", *_flags()))
        yield Fault(
            f"{role}: `docker rm -f` by hand", docker(place, "rm", "-f", f"vllmray-{role}"), by_hand=up, why=REMOVED
        )


def _flags() -> tuple[str, ...]:
    from tests.faults.cluster import ENGINE_FLAGS

    return ENGINE_FLAGS


def _processes() -> Iterator[Fault]:
    for place in ("head", "worker"):
        yield Fault(f"{place}: raylet killed", signalled(place, place, RAYLET, signal.SIGKILL))
        yield Fault(f"{place}: raylet stopped (SIGSTOP)", signalled(place, place, RAYLET, signal.SIGSTOP))
        yield Fault(f"{place}: Ray actor killed", signalled(place, place, ACTOR, signal.SIGKILL))
        yield Fault(f"{place}: Ray actor stopped (SIGSTOP)", signalled(place, place, ACTOR, signal.SIGSTOP))
    yield Fault("head: GCS killed", signalled("head", "head", GCS, signal.SIGKILL))
    yield Fault("head: GCS stopped (SIGSTOP)", signalled("head", "head", GCS, signal.SIGSTOP))
    yield Fault("engine: server killed (SIGKILL)", at_once(server_killed))
    yield Fault("engine: server told to end (SIGTERM)", signalled("head", "engine", SERVER, signal.SIGTERM))
    yield Fault("engine: server stopped (SIGSTOP)", signalled("head", "engine", SERVER, signal.SIGSTOP))
    yield Fault("engine: core killed", signalled("head", "engine", CORE, signal.SIGKILL))
    yield Fault("engine: core stopped (SIGSTOP)", signalled("head", "engine", CORE, signal.SIGSTOP), quick=True)


def _hosts() -> Iterator[Fault]:
    for place in ("head", "worker"):
        where = f"{place}'s host"
        yield Fault(f"{where}: daemon restarted", daemon_restarted(place))
        yield Fault(f"{where}: powered off for 10 s", powered_off(place), lasts=10)
        cut = on_cable(_cut, place)
        yield Fault(f"{where}: network cut for 5 s", cut, lasts=5, outage=False, quick=place == "worker")
        yield Fault(f"{where}: network cut for 90 s", cut, lasts=90)
        lossy = on_cable(cable.lossy, place, percent=10, direction="from")
        yield Fault(f"{where}: a tenth of the packets that leave it lost for 30 s", lossy, lasts=30, outage=False)
        slow = on_cable(cable.slow, place, delay_ms=200)
        yield Fault(f"{where}: every packet 200 ms late for 30 s", slow, lasts=30, outage=False)
        clock = clock_jumped(place, 3600)
        yield Fault(f"{where}: clock an hour ahead for 30 s, then back", clock, lasts=30)
        shm = both(full(place, "/dev/shm"), at_once(server_killed))
        yield Fault(f"{where}: /dev/shm full, and the engine killed", shm, lasts=30)
        disk = both(full(place, "/tmp/ray"), full(place, "/var/lib/vllmray/cache"), at_once(server_killed))
        yield Fault(f"{where}: disks full, and the engine killed", disk, lasts=30)
        yield Fault(
            f"{where}: no name server, and the engine killed", both(no_names(place), at_once(server_killed)), 30
        )
    together = powered_off("head", "worker", on=("head", "worker"), apart_s=10)
    yield Fault("both hosts: powered off, the head's on first", together, lasts=5, quick=True)
    together = powered_off("head", "worker", on=("worker", "head"), apart_s=10)
    yield Fault("both hosts: powered off, the worker's on first", together, lasts=5)
    yield Fault("the model's files away for 20 s, and the engine killed", model_away, lasts=20)


CATALOGUE = (*_containers(), *_processes(), *_hosts(), *_removed())
