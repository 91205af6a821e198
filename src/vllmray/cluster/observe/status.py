"""`status`: the state of a cluster, read from labels, Docker and Ray; it needs no settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from vllmray.cluster.observe.gpu_memory import GpuMemory, gpu_memory
from vllmray.cluster.observe.reasons import reason
from vllmray.cluster.observe.watch import Watch, watch_argv
from vllmray.cluster.probe.short_lived import exec_to_end
from vllmray.cluster.spec import labels
from vllmray.cluster.spec.containers import ENGINE_STATE
from vllmray.cluster.state import by_role, no_cluster, usable
from vllmray.errors import ClusterStateError, HostError
from vllmray.hosts.base import Container, Exec, Host
from vllmray.payload.journal import Entry, parse
from vllmray.payload.protocol import FRESH_S, GATE_SETTINGS, EngineState, RayStatus
from vllmray.ray.argv import RAY
from vllmray.reporter import SilentStep
from vllmray.wait import Clock, NotReady, Ready, SystemClock, wait_until

SHORT_S = 15.0
REFRESH_S = 1.0
POLL_S = 0.2
GPUS_S = 5.0
"""Between two looks at the GPUs' memory, which moves all the time."""
LOG_LINES = 400


@dataclass(frozen=True, slots=True)
class ClusterView:
    """A cluster as seen from one of its hosts."""

    cluster: str
    host: str
    role: str
    """Of this host: head or worker."""
    containers: tuple[Container, ...]
    settings: dict[str, Any]
    """The configuration that this host's containers carry."""
    ray: RayStatus | None
    """None when no node runs here that could be asked."""
    gpus: tuple[GpuMemory, ...] = ()
    """Of this host, as far as they are known."""
    told: Entry | None = None
    """What the program of this host's node or engine last wrote into its log; looked for only where it is not ready."""
    reason: str | None = None
    """Why the engine last ended, in its own words; looked for only where it did and is not ready."""

    @property
    def engine(self) -> EngineState | None:
        """The engine's own state; known only on the head's host."""
        return self.ray.engine if self.ray else None

    @property
    def endpoint(self) -> str | None:
        """Where the engine is, or will be; None on a worker's host."""
        if self.role != labels.HEAD or "port" not in self.settings:
            return None
        scheme = "https" if self.settings.get("tls") or self.settings.get("ssl_certfile") else "http"
        return f"{scheme}://{self.settings['node_ip']}:{self.settings['port']}/v1"

    @property
    def gpus_wanted(self) -> int | None:
        """The engine's world size; None on a worker's host."""
        if "tensor_parallel_size" not in self.settings:
            return None
        return int(self.settings["tensor_parallel_size"]) * int(self.settings["pipeline_parallel_size"])

    @property
    def problem(self) -> str | None:
        """Why the cluster is not ready, in one line; None when it is."""
        for container in self.containers:
            if not usable(container):
                return f"{container.name} is {container.status} (exit code {container.exit_code})"
        if self.ray is None:
            return "no Ray node runs on this host"
        if self.ray.error and self.told and self.told.kind == "waiting" and self.role == labels.WORKER:
            return f"waiting {self.told.text}"
        if self.ray.error:
            return f"Ray does not answer: {self.ray.error.splitlines()[0]}"
        return self._engine_problem() if self.role == labels.HEAD else self._worker_problem(self.ray)

    def _worker_problem(self, ray: RayStatus) -> str | None:
        ip = str(self.settings.get("node_ip"))
        return None if ray.node(ip) else f"the head does not list {ip}"

    def _engine_problem(self) -> str | None:
        if not any(container.labels.get(labels.ROLE) == labels.ENGINE for container in self.containers):
            return "the engine's container is missing"
        if self.engine is None:
            return "the engine is starting"
        if self.ray and self.ray.shortfall:
            return f"waiting for GPUs: {self.ray.shortfall}"
        if self.engine.phase == "ready":
            return None
        if self.engine.phase == "insecure":
            return f"the engine was stopped, because the cluster is not secure: {self.engine.detail}"
        words = (
            "the engine crash-looped; not restarting" if self.engine.phase == "given-up" else "the engine is not ready"
        )
        why = f"; it last ended with {self.reason}" if self.reason else ""
        return f"{words}: {self.engine.detail or self.engine.phase}{why}"

    @property
    def since(self) -> float | None:
        """Since when it has the problem, in unix seconds of the host; None when it is ready, or that is not known."""
        if self.ready:
            return None
        down = [container for container in self.containers if not usable(container)]
        if down:
            return down[0].ended_unix
        if self.engine and self.engine.missing_since:
            return self.engine.missing_since
        if self.engine and self.engine.phase != "ready":
            return self.engine.since
        return self.told.at if self.told else None

    @property
    def ready(self) -> bool:
        """Head: the endpoint serves. Worker: the head lists this node alive."""
        return self.problem is None


def look(host: Host, cluster: str) -> ClusterView:
    """The state of the cluster now.

    Raises:
        ClusterStateError: nothing of that name is on the host.
    """
    found = _found(host, cluster)
    view = _view(host, cluster, found, _ray(host, found), _gpus(host, found))
    return view if view.ready else _explained(host, view, found)


def _explained(host: Host, view: ClusterView, found: dict[str, Container]) -> ClusterView:
    """The view, with what the log of the engine, or of the node, says about the problem."""
    container = found.get(labels.ENGINE) or found.get(view.role)
    if container is None:
        return view
    try:
        lines = list(host.logs(container.id, tail=LOG_LINES))
    except HostError:
        return view
    told = next((entry for line in reversed(lines) if (entry := parse(line))), None)
    died = view.engine is not None and view.engine.deaths > 0
    return replace(view, told=told, reason=reason(lines) if died else None)


def _found(host: Host, cluster: str) -> dict[str, Container]:
    found = by_role(host, cluster)
    found.pop(labels.PROBE, None)
    if not found:
        raise no_cluster(host, cluster)
    return found


def _view(
    host: Host,
    cluster: str,
    found: dict[str, Container],
    ray: RayStatus | None,
    gpus: tuple[GpuMemory, ...],
) -> ClusterView:
    return ClusterView(cluster, host.address, _role(found), tuple(found.values()), _settings(found), ray, gpus)


def _gpus(host: Host, found: dict[str, Container]) -> tuple[GpuMemory, ...]:
    node = found.get(_role(found))
    return gpu_memory(host, node.id, _settings(found)) if node and usable(node) else ()


def _role(found: dict[str, Container]) -> str:
    return labels.HEAD if labels.HEAD in found or labels.ENGINE in found else labels.WORKER


def _settings(found: dict[str, Container]) -> dict[str, Any]:
    """Of the node that speaks for this host; a worker on a head's host has settings of its own."""
    roles = (labels.HEAD, labels.ENGINE) if _role(found) == labels.HEAD else (labels.WORKER,)
    settings: dict[str, Any] = {}
    for role in roles:
        if role in found:
            settings |= _carried(found[role])
    return settings


def _carried(container: Container) -> dict[str, Any]:
    carried = labels.carried_config(container.labels)
    if not carried:
        raise ClusterStateError(
            f"{container.name} has no settings in its label {labels.CONFIG}",
            hint="It was not started by `vllmray up`, or by another version: `vllmray down` removes it.",
        )
    return carried


def _ray(host: Host, found: dict[str, Container]) -> RayStatus | None:
    """Ray's view: the engine's, when it is fresh, since that costs no interpreter; else asked for here."""
    role = _role(found)
    node = found.get(role)
    if node is None or not usable(node):
        return None
    if role == labels.WORKER:
        return ask_ray(host, node.id, _settings(found), engine=False)
    ray = _from_engine(host, node.id) or ask_ray(host, node.id, _settings(found), engine=True)
    engine = found.get(labels.ENGINE)
    return ray.said_after(engine.started_unix) if engine else ray


@dataclass(frozen=True, kw_only=True)
class _Said(EngineState):
    """The whole of launch.py's state file."""

    heartbeat: float
    ray: RayStatus


_SAID = TypeAdapter(_Said)


def _from_engine(host: Host, container: str) -> RayStatus | None:
    """What the engine's container last wrote, unless it is old by that host's seconds since boot (man 5 proc)."""
    lines = exec_to_end(host, container, ("cat", "/proc/uptime", ENGINE_STATE), SHORT_S)
    try:
        now, said = float(lines[0].split()[0]), _SAID.validate_json(lines[1])
        state = EngineState(**{each.name: getattr(said, each.name) for each in fields(EngineState)})
    except (IndexError, ValueError, ValidationError):
        return None
    return replace(said.ray, engine=state) if now - said.heartbeat < FRESH_S else None


def ask_ray(host: Host, container: str, settings: dict[str, Any], *, engine: bool) -> RayStatus:
    """One observation by a watch.py of our own; costs an import of Ray."""
    with Watch(host, container, _watch_argv(settings, engine=engine, once=True)) as watch:
        return watch.latest(SHORT_S) or RayStatus(error=f"no answer within {SHORT_S:.0f} s")


def _watch_argv(settings: dict[str, Any], *, engine: bool, once: bool) -> tuple[str, ...]:
    gate: dict[str, object] = {name: settings[name] for name in GATE_SETTINGS if name in settings}
    return watch_argv(_address(settings), gate=gate, engine=engine, once=once)


def _address(settings: dict[str, Any]) -> str:
    return f"{settings['head_ip']}:{settings['ray_ports']['gcs']}"


def follow(host: Host, cluster: str, clock: Clock | None = None) -> Iterator[ClusterView]:
    """The state of the cluster at once and at each change, for ever."""
    clock = clock or SystemClock()
    found = _found(host, cluster)
    role = _role(found)
    argv = _watch_argv(_settings(found), engine=role == labels.HEAD, once=False)
    last: ClusterView | None = None
    ray: RayStatus | None = None
    name = next(found[key].name for key in (role, labels.ENGINE) if key in found)
    gpus: tuple[GpuMemory, ...] = ()
    looked: float | None = None
    with Watch(host, name, argv) as watch:
        while True:
            ray = watch.latest(REFRESH_S) or ray
            found = _found(host, cluster)
            if looked is None or clock.monotonic() - looked > GPUS_S:
                gpus, looked = _gpus(host, found), clock.monotonic()
            view = _view(host, cluster, found, ray or RayStatus(error="asking"), gpus)
            if view != last:
                last = view
                yield view
            clock.sleep(POLL_S)


def raw(host: Host, cluster: str, clock: Clock | None = None) -> Iterator[str]:
    """What `ray status -v` prints in this host's node, line by line.

    Raises:
        HostError: the node is not running, or Ray did not answer.
    """
    found = _found(host, cluster)
    node = found.get(labels.HEAD) or found.get(labels.WORKER)
    if node is None or not usable(node):
        raise HostError(f"{host.address}: no Ray node of cluster {cluster} runs here")
    running = host.exec(node.id, (*RAY, "status", "-v", f"--address={_address(_settings(found))}"))
    try:
        while True:
            line = running.read_line(REFRESH_S)
            if line is not None:
                yield line
    except EOFError:
        code = _exit_code(running, clock)
    finally:
        running.close()
    if code:
        raise HostError(f"{host.address}: `ray status` in {node.name} failed (exit code {code})")


def _exit_code(running: Exec, clock: Clock | None) -> int:
    """Of a process whose output has ended; the host may think for a moment that it still runs."""

    def probe(_left: float) -> Ready[int] | NotReady:
        code = running.exit_code()
        return NotReady("it is ending") if code is None else Ready(code)

    return wait_until(probe, what="exit code", timeout=SHORT_S, step=SilentStep(), poll_interval=0.05, clock=clock)
