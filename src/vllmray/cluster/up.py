"""`up`: from a host to a node of the cluster, and on the head to a serving engine."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from vllmray.cluster import existing, labels, waits
from vllmray.cluster.images import ensure_image
from vllmray.cluster.node import NodeProbe, Question, ask, check, node_of, scripts
from vllmray.cluster.plan import engine_spec, head_spec, worker_spec
from vllmray.cluster.watching import log_tail
from vllmray.config.models import ClusterConfig, Role
from vllmray.config.values import as_typed
from vllmray.errors import UserInterruptError, VllmrayError, WaitTimeoutError
from vllmray.hosts.base import Container, ContainerSpec, Host, HostInfo
from vllmray.ray.status import RayStatus
from vllmray.reporter import Reporter

FIRST_CONNECT_S = 2.5


@dataclass(frozen=True, slots=True)
class Options:
    """How to go about it, as against what to make."""

    wait: bool = True
    recreate: bool = False
    retain: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What `up` made or found."""

    role: Role
    config: ClusterConfig
    """With the address and interface that were found filled in."""
    worker_command: str
    ready: bool
    status: RayStatus | None = None


@dataclass(slots=True)
class _Run:
    """One `up` under way, and what it has made so far."""

    host: Host
    reporter: Reporter
    options: Options
    containers: dict[str, Container]
    made: list[Container] = field(default_factory=list)

    def start(self, title: str, spec: ContainerSpec, role: str) -> None:
        """Create and start a container unless it is there already."""
        with self.reporter.step(title) as step:
            if existing.usable(self.containers.get(role)):
                step.result("running already")
                return
            container = self.host.create_and_start(spec)
            self.containers[role] = container
            self.made.append(container)
            step.result(container.name)


def up_head(host: Host, config: ClusterConfig, options: Options, reporter: Reporter) -> Outcome:
    """Start the head and the engine on this host, and wait until the endpoint answers.

    Raises:
        HostError, ClusterStateError, WaitTimeoutError, WorkloadError: see errors.py. Unless options.retain, what this
            call made is removed again.
        UserInterruptError: Ctrl-C; everything goes on running.
    """
    info = _reach(host, reporter)
    ensure_image(host, config.image, reporter)
    run = _Run(host, reporter, options, existing.by_role(host, config.cluster))
    with reporter.step("network and image") as step:
        probe = ask(host, config, info.cdi_devices, Question(ports=_ports_to_take(run, config, "head")))
        check(host, config, probe)
        node = node_of(config, probe, info.cdi_devices)
        config = _settled(config, probe, head_ip=node.ip)
        step.result(f"{node.ip} on {node.interface}, {node.gpus} GPU{'' if node.gpus == 1 else 's'}")
    _converge(run, config, (labels.HEAD, labels.ENGINE))
    command = worker_command(config)
    with _cleaning_up(run, config):
        programs = scripts()
        run.start("Ray head", head_spec(config, node, programs), labels.HEAD)
        if config.world_size > int(node.gpus):
            reporter.note(f"On each other host:\n\n    {command}\n")
        # Started now, not when the GPUs are there: launch.py waits for them, and imports vLLM meanwhile.
        run.start("engine container", engine_spec(config, node, programs), labels.ENGINE)
        if not options.wait:
            return Outcome("head", config, command, ready=False)
        status = waits.for_engine(host, config, run.containers, reporter)
    return Outcome("head", config, command, ready=True, status=status)


def up_worker(host: Host, config: ClusterConfig, options: Options, reporter: Reporter) -> Outcome:
    """Start a worker on this host, and wait until the head lists it with its GPUs. Raises as up_head does."""
    info = _reach(host, reporter)
    ensure_image(host, config.image, reporter)
    run = _Run(host, reporter, options, existing.by_role(host, config.cluster))
    question = _WorkerQuestion(config, _ports_to_take(run, config, "worker"))
    with reporter.step(f"head {config.head_ip}:{config.ray_ports.gcs}") as step:
        probe = ask(host, config, info.cdi_devices, question.trying(FIRST_CONNECT_S))
        check(host, config, probe)
        node = node_of(config, probe, info.cdi_devices)
        if probe.connect != "open" and options.wait:
            with _evidence(hint=_unreachable_hint(config)):
                waits.for_head(
                    config, probe, step, again=lambda left: _ask_again(host, config, info, question.trying(left))
                )
        step.result("answers" if options.wait or probe.connect == "open" else f"{probe.connect}; the worker will retry")
    config = _settled(config, probe, head_ip=str(config.head_ip))
    _converge(run, config, (labels.WORKER,))
    with _cleaning_up(run, config):
        run.start("Ray worker", worker_spec(config, node, scripts()), labels.WORKER)
        if not options.wait:
            return Outcome("worker", config, worker_command(config), ready=False)
        status = waits.for_worker(host, config, node, run.containers, reporter)
    return Outcome("worker", config, worker_command(config), ready=True, status=status)


@dataclass(frozen=True, slots=True)
class _WorkerQuestion:
    config: ClusterConfig
    ports: dict[str, int]

    def trying(self, seconds: float) -> Question:
        head = str(self.config.head_ip)
        return Question(towards=head, ports=self.ports, connect=(head, self.config.ray_ports.gcs, seconds))


def _ask_again(host: Host, config: ClusterConfig, info: HostInfo, question: Question) -> str:
    return ask(host, config, info.cdi_devices, question).connect or "no answer"


def _unreachable_hint(config: ClusterConfig) -> str:
    return (
        f"Check that `vllmray up --role head` runs on {config.head_ip}, that its address is right, and that no "
        f"firewall drops TCP port {config.ray_ports.gcs} between the hosts."
    )


def _reach(host: Host, reporter: Reporter) -> HostInfo:
    with reporter.step(f"host {host.address}") as step:
        host.ping()
        info = host.info()
        step.result(f"Docker {info.version}, {info.cpus} CPUs, {info.memory / 1024**3:.0f} GiB")
    return info


def _ports_to_take(run: _Run, config: ClusterConfig, role: Role) -> dict[str, int]:
    """The ports that must be free: those of the containers that are not running yet."""
    ports: dict[str, int] = {}
    if not existing.usable(run.containers.get(role)):
        ports |= config.ray_ports.listening(role)
    if role == "head" and not existing.usable(run.containers.get(labels.ENGINE)):
        ports["port"] = config.port
    # With another configuration there, the ports of what it runs are no reason to refuse: the change is.
    return {} if run.options.recreate and run.containers else ports


def _settled(config: ClusterConfig, probe: NodeProbe, *, head_ip: str) -> ClusterConfig:
    found = {"node_ip": probe.node_ip, "network_interface": probe.interface, "head_ip": head_ip}
    return config.model_copy(update=found)


def _converge(run: _Run, config: ClusterConfig, roles: tuple[str, ...]) -> None:
    """Leave only containers that can stay as they are; an engine never outlives its head."""
    found = run.containers
    if not run.options.recreate:
        existing.refuse_changes(run.host, found, config, roles)
    changed = any(role in found and labels.changed_fields(found[role].labels, config, role) for role in roles)
    if changed or not existing.usable(found.get(roles[0])):
        stale = roles
    else:
        stale = tuple(role for role in roles if not existing.usable(found.get(role)))
    if any(role in found for role in stale):
        with run.reporter.step("removing what can't stay"):
            existing.remove(run.host, found, *stale)


@contextmanager
def _cleaning_up(run: _Run, config: ClusterConfig) -> Iterator[None]:
    """On an error, take back what this run made; on Ctrl-C, leave it and say so."""
    try:
        with _evidence(log=lambda: _last_log(run)):
            yield
    except KeyboardInterrupt:
        raise _interrupted(run, config) from None
    except VllmrayError as error:
        if run.made and run.options.retain:
            kept = ", ".join(container.name for container in run.made)
            error.hint = f"{error.hint or ''}\nKept: {kept}. `vllmray down` removes them.".strip()
        else:
            _take_back(run, config)
        raise


def _take_back(run: _Run, config: ClusterConfig) -> None:
    if not run.made:
        return
    with run.reporter.step("removing what was started"), suppress(VllmrayError):
        made = {container.labels[labels.ROLE]: container for container in run.made}
        head_made = labels.HEAD in made
        existing.remove(run.host, made, *labels.STOP_ORDER)
        if head_made:
            run.host.remove_volumes(labels.selector(config.cluster))


def _interrupted(run: _Run, config: ClusterConfig) -> UserInterruptError:
    names = ", ".join(container.name for container in run.containers.values()) or "nothing"
    name = config.cluster_option
    return UserInterruptError(
        f"stopped waiting; still running on {run.host.address}: {names}",
        hint=f"The same command goes on waiting; `vllmray status{name}` shows the cluster; "
        f"`vllmray down{name}` removes it.",
    )


@contextmanager
def _evidence(*, log: Callable[[], str | None] = lambda: None, hint: str | None = None) -> Iterator[None]:
    """Give a wait that timed out the end of a log and a hint."""
    try:
        yield
    except WaitTimeoutError as error:
        error.details = error.details or log()
        error.hint = error.hint or hint or "Give it longer, or look at the log above for what it is stuck on."
        raise


def _last_log(run: _Run) -> str | None:
    for role in (labels.ENGINE, labels.WORKER, labels.HEAD):
        if role in run.containers:
            container = run.containers[role]
            return f"The end of the log of {container.name}:\n{log_tail(run.host, container.id)}"
    return None


def worker_command(config: ClusterConfig) -> str:
    """The exact command for the other hosts: the head's address, and what differs from a worker's defaults."""
    default = ClusterConfig()
    argv = ["vllmray", "up", "--role", "worker", "--head-ip", str(config.head_ip)]
    same = ["cluster", "image", "accelerator", "shm_size", "object_store_memory", "memlock", "nofile"]
    if config.model_is_a_folder:
        same.append("model")
    for name in same:
        value = getattr(config, name)
        if value != getattr(default, name):
            argv += [f"--{name.replace('_', '-')}", as_typed(name, value)]
    for volume in config.volumes:
        argv += ["--volume", volume]
    for variable in config.env:
        argv += ["--env", variable]
    for name, port in config.ray_ports:
        if port != getattr(default.ray_ports, name):
            argv += ["--ray-port", f"{name}={port}"]
    return shlex.join(argv)
