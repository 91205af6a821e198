"""`up`: from a host to a node of the cluster, and on the head to a serving engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from vllmray.cluster import existing, labels, waits
from vllmray.cluster.agreement import agree
from vllmray.cluster.commands import token_words, worker_command
from vllmray.cluster.contents import Contents, Secrets
from vllmray.cluster.derive import usable_image
from vllmray.cluster.fit import check_span, settle
from vllmray.cluster.host_model import Look, look_there
from vllmray.cluster.node import NodeProbe, Question, ask, check, contents, have_cache, node_of
from vllmray.cluster.plan import engine_spec, head_spec, worker_spec
from vllmray.cluster.user import with_user
from vllmray.cluster.watching import log_tail
from vllmray.config.models import ClusterConfig, Role
from vllmray.errors import UserInterruptError, VllmrayError, WaitTimeoutError
from vllmray.hosts.base import Container, ContainerSpec, Host, HostInfo
from vllmray.images.fingerprint import as_labels, fingerprint
from vllmray.ray.status import RayStatus
from vllmray.reporter import Reporter

FIRST_CONNECT_S = 2.5


@dataclass(frozen=True, slots=True)
class Options:
    """How to go about it, as against what to make."""

    wait: bool = True
    recreate: bool = False
    retain: bool = False
    derive: bool = True
    """Add Ray to an image that lacks it."""
    cache: Path | None = None
    """A folder of this machine for what images answered."""
    whole: bool = False
    """No person has to do anything elsewhere: the other nodes come by themselves."""
    look: Look = field(default_factory=Look)
    """What is known of the model, or whether to ask the host."""
    secrets: Callable[[ClusterConfig], Secrets] = Secrets.of
    """The cluster's, once the node's address is known: a certificate is for it."""
    keep: Callable[[Secrets], object] = lambda _: None
    """Called with them once they are the cluster's: on a head when nothing that runs has others, or is to; for a worker
    when the head has taken it.
    """
    caller: str | None = None
    """UID:GID to run containers as where the image says nothing better than root."""


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
    secrets: Secrets = field(default_factory=Secrets)
    made: list[Container] = field(default_factory=list)

    @property
    def contents(self) -> Contents:
        """What the containers get."""
        return contents().with_secrets(self.secrets)

    @property
    def made_engine(self) -> bool:
        """Whether the engine's container is this run's own."""
        return any(container.labels[labels.ROLE] == labels.ENGINE for container in self.made)

    def running(self, role: str) -> str | None:
        """The name of the container of that role, when it can stay as it is."""
        container = self.containers.get(role)
        return container.name if container and existing.usable(container) else None

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


def up_head(
    host: Host,
    config: ClusterConfig,
    options: Options,
    reporter: Reporter,
    *,
    meanwhile: Callable[[], object] = lambda: None,
) -> Outcome:
    """Start the head and the engine on this host, and wait until the endpoint answers.

    Args:
        meanwhile: called when both are started, before the wait.

    Raises:
        HostError, ClusterStateError, WaitTimeoutError, WorkloadError: see errors.py. Unless options.retain, what this
            call made is removed again.
        UserInterruptError: Ctrl-C; everything goes on running.
    """
    info = _reach(host, reporter)
    image = usable_image(host, config, reporter, cache=options.cache, derive=options.derive)
    config = with_user(host, image.config, image.facts, None if info.rootless else options.caller, reporter)
    model = look_there(host, config, options.look, reporter)
    run = _Run(host, reporter, options, existing.by_role(host, config.cluster))
    with reporter.step("network and GPUs") as step:
        question = Question(ports=_ports_to_take(run, config, "head"), node=run.running(labels.HEAD))
        probe = ask(host, config, info.cdi_devices, question)
        check(host, config, probe)
        have_cache(host, config, probe)
        node = replace(
            node_of(config, probe, info.cdi_devices), labels=as_labels(fingerprint(image.facts, image.named))
        )
        config = _settled(config, probe, head_ip=node.ip)
        step.result(f"{node.ip} on {node.interface}, {node.gpus} GPU{'' if node.gpus == 1 else 's'}")
    config = settle(model, config, probe.gpu_memory, reporter)
    check_span(config, int(node.gpus), host.address, options.look.named)
    run.secrets = options.secrets(config)
    _converge(run, config, (labels.HEAD, labels.ENGINE))
    options.keep(run.secrets)
    command = worker_command(config.model_copy(update={"image": image.named, "user": image.config.user}))
    with _cleaning_up(run, config):
        run.start("Ray head", head_spec(config, node, run.contents), labels.HEAD)
        if config.world_size > int(node.gpus) and not options.whole:
            reporter.note(f"On each other host, {token_words(config)}:\n\n    {command}\n")
        # Started now, not when the GPUs are there: launch.py waits for them, and imports vLLM meanwhile.
        run.start("vLLM server", engine_spec(config, node, run.contents), labels.ENGINE)
        meanwhile()
        if not options.wait:
            return Outcome("head", config, command, ready=False)
        status = waits.for_engine(host, config, run.containers, reporter, fresh=run.made_engine)
    return Outcome("head", config, command, ready=True, status=status)


def up_worker(host: Host, config: ClusterConfig, options: Options, reporter: Reporter) -> Outcome:
    """Start a worker on this host, and wait until the head lists it with its GPUs. Raises as up_head does."""
    config = config.among_neighbours()
    info = _reach(host, reporter)
    image = usable_image(host, config, reporter, cache=options.cache, derive=options.derive)
    config = with_user(host, image.config, image.facts, None if info.rootless else options.caller, reporter)
    run = _Run(host, reporter, options, existing.by_role(host, config.cluster), options.secrets(config))
    question = _WorkerQuestion(config, _ports_to_take(run, config, "worker"), run.running(labels.WORKER))
    with reporter.step(f"head {config.head_ip}:{config.ray_ports.gcs}") as step:
        probe = ask(host, config, info.cdi_devices, question.trying(FIRST_CONNECT_S))
        check(host, config, probe)
        have_cache(host, config, probe)
        node = node_of(config, probe, info.cdi_devices)
        if probe.connect != "open" and options.wait:
            with _evidence(hint=_unreachable_hint(config)):
                waits.for_head(
                    config, probe, step, again=lambda left: _ask_again(host, config, info, question.trying(left))
                )
        answers = options.wait or probe.connect == "open"
        step.result("answers" if answers else f"{probe.connect}; the worker will retry")
    config = _settled(config, probe, head_ip=str(config.head_ip))
    if answers and question.node is None:
        agree(host, config, run.secrets, fingerprint(image.facts, image.named), reporter)
    _converge(run, config, (labels.WORKER,))
    with _cleaning_up(run, config):
        run.start("Ray worker", worker_spec(config, node, run.contents), labels.WORKER)
        if not options.wait:
            return Outcome("worker", config, worker_command(config), ready=False)
        status = waits.for_worker(host, config, node, run.containers, reporter)
    options.keep(run.secrets)
    return Outcome("worker", config, worker_command(config), ready=True, status=status)


@dataclass(frozen=True, slots=True)
class _WorkerQuestion:
    config: ClusterConfig
    ports: dict[str, int]
    node: str | None

    def trying(self, seconds: float) -> Question:
        head = str(self.config.head_ip)
        return Question(
            towards=head, ports=self.ports, connect=(head, self.config.ray_ports.gcs, seconds), node=self.node
        )


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
        step.result(f"{info.runtime}, {info.cpus} CPUs, {info.memory / 1024**3:.0f} GiB")
    return info


def _ports_to_take(run: _Run, config: ClusterConfig, role: Role) -> dict[str, int]:
    """The ports that must be free: those of the containers that are not running yet."""
    ports: dict[str, int] = {}
    if not existing.usable(run.containers.get(role)):
        ports |= config.ray_ports.listening(role, metrics=config.ray_metrics)
    if role == "head" and not existing.usable(run.containers.get(labels.ENGINE)):
        ports["port"] = config.port
    # With another configuration there, the ports of what it runs are no reason to refuse: the change is.
    return {} if run.options.recreate and run.containers else ports


def _settled(config: ClusterConfig, probe: NodeProbe, *, head_ip: str) -> ClusterConfig:
    found = {"node_ip": probe.node_ip, "network_interface": probe.interface, "head_ip": head_ip}
    return config.model_copy(update=found)


def _converge(run: _Run, config: ClusterConfig, roles: tuple[str, ...]) -> None:
    """Leave only containers that can stay as they are, and say of each other one why it goes."""
    found = run.containers
    if not run.options.recreate:
        existing.refuse_changes(run.host, found, config, run.secrets, roles)
    stale = {role: why for role in roles if (why := existing.why_stale(found, config, run.secrets, role))}
    if roles[0] in stale and config.network != "host":
        stale |= {role: ["it is in the network of the head's"] for role in roles if role in found and role not in stale}
    for role in (role for role in labels.STOP_ORDER if role in stale):
        with run.reporter.step(f"removing {found[role].name}") as step:
            step.event("; ".join(stale[role]))
            existing.remove(run.host, found, role)


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
        existing.remove(run.host, made, *labels.STOP_ORDER)
        if not existing.by_role(run.host, config.cluster):
            run.host.prune(labels.selector(config.cluster))


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
