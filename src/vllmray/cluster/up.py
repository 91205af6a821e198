"""`up`: start a node of the cluster on a host, and on the head's host the engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from vllmray.cluster import state, waits
from vllmray.cluster.images.derive import Usable, usable_image
from vllmray.cluster.lock import Turn, in_words
from vllmray.cluster.probe.advice import advise, leaving_room, worker_room
from vllmray.cluster.probe.free_memory import Room
from vllmray.cluster.probe.host import Question, ask, check, have_cache, node_of
from vllmray.cluster.probe.model import look_there
from vllmray.cluster.probe.user import with_user
from vllmray.cluster.probe.versions import agree
from vllmray.cluster.run import Outcome, Run, UpOptions, cleaning_up, evidence
from vllmray.cluster.spec import labels
from vllmray.cluster.spec.commands import token_words, worker_command
from vllmray.cluster.spec.containers import Node, engine_spec, head_spec, worker_spec
from vllmray.cluster.spec.sizes import check_span, resolve_sizes
from vllmray.config.models import ClusterConfig, Role
from vllmray.config.resolved import ResolvedConfig
from vllmray.errors import HeldError, HostError
from vllmray.hosts.base import Host
from vllmray.hosts.facts import HostInfo
from vllmray.images.fingerprint import as_labels, fingerprint
from vllmray.reporter import Reporter

FIRST_CONNECT_S = 2.5


def up_head(
    host: Host,
    config: ClusterConfig,
    options: UpOptions,
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
        UserInterruptError: Ctrl-C; everything keeps running.
    """
    info = _reach(host, config, reporter)
    image = usable_image(host, config, reporter, cache=options.cache, derive=options.derive)
    run = Run(host, reporter, options, config.cluster)
    with cleaning_up(run, image.config):
        with run.turn(image.config.image):
            run.look()
            config, node = _prepare_head(run, image, info)
            command = worker_command(config, instead={"image": image.named, "user": image.config.user})
            run.start("Ray head", head_spec(config, node, run.contents), labels.HEAD)
            options.keep(run.secrets)
            if config.world_size > int(node.gpus) and not options.whole:
                reporter.note(f"On each other host, {token_words(config)}:\n\n    {command}\n")
            # Started now, not when the GPUs are there: launch.py waits for them, and imports vLLM meanwhile.
            run.start("vLLM server", engine_spec(config, node, run.contents), labels.ENGINE)
        meanwhile()
        if not options.wait:
            return Outcome("head", config, command, ready=False, made=tuple(run.made))
        status = waits.for_engine(host, config, run.containers, reporter, fresh=run.made_engine)
    return Outcome("head", config, command, ready=True, status=status, made=tuple(run.made))


def up_worker(host: Host, config: ClusterConfig, options: UpOptions, reporter: Reporter) -> Outcome:
    """Start a worker on this host, and wait until the head lists it with its GPUs. Raises as up_head does."""
    config = config.with_loopback_ports()
    info = _reach(host, config, reporter)
    image = usable_image(host, config, reporter, cache=options.cache, derive=options.derive)
    run = Run(host, reporter, options, config.cluster)
    with cleaning_up(run, image.config):
        with run.turn(image.config.image) as turn:
            run.look()
            config = with_user(host, image.config, image.facts, None if info.rootless else options.caller, reporter)
            run.secrets = options.secrets(config)
            config, node, answers = _find_head(run, turn, config, info)
            if answers:  # also for one that runs: after the head's restart its token may be an old one
                held = fingerprint(image.facts, image.named)
                agree(host, config, run.secrets, held, reporter, node=run.running(labels.WORKER))
            had = labels.WORKER in run.containers
            _converge(run, config, (labels.WORKER,))
            if had and not run.running(labels.WORKER):
                Room(host, config).check_again(node.gpu_devices, reporter)
            run.start("Ray worker", worker_spec(config, node, run.contents), labels.WORKER)
        if not options.wait:
            return Outcome("worker", config, worker_command(config), ready=False, made=tuple(run.made))
        status = waits.for_worker(host, config, node, run.containers, reporter)
    options.keep(run.secrets)
    return Outcome("worker", config, worker_command(config), ready=True, status=status, made=tuple(run.made))


def _prepare_head(run: Run, image: Usable, info: HostInfo) -> tuple[ResolvedConfig, Node]:
    """Check that this host can run the head with these settings, and remove containers that can't stay."""
    host, options, reporter = run.host, run.options, run.reporter
    config = with_user(host, image.config, image.facts, None if info.rootless else options.caller, reporter)
    model = look_there(host, config, options.look, reporter)
    with reporter.step("network and GPUs") as step:
        question = Question(ports=_ports_to_take(run, config, "head"), node=run.running(labels.HEAD))
        probe = ask(host, config, info.cdi_devices, question)
        check(host, config, probe)
        have_cache(host, config, probe)
        node = replace(node_of(config, probe), labels=as_labels(fingerprint(image.facts, image.named)))
        step.result(f"{node.ip} on {node.interface}, {node.gpus} GPU{'' if node.gpus == 1 else 's'}")
    config = leaving_room(host, config, probe, run.containers.get(labels.ENGINE), reporter)
    config = ResolvedConfig.of(
        resolve_sizes(model, config, probe.gpu_memory, reporter),
        node_ip=node.ip,
        interface=node.interface,
        head_ip=node.ip,
    )
    check_span(config, int(node.gpus), host.address, options.look.named)
    advise(host, config, probe, reporter, several=config.world_size > int(node.gpus))
    room, had = Room(host, config, config.world_size), bool(run.containers)
    if not had:
        room.check(probe.cards, probe.gpu_devices)
    run.secrets = options.secrets(config)
    _converge(run, config, (labels.HEAD, labels.ENGINE))
    if had and not run.running(labels.ENGINE):
        room.check_again(probe.gpu_devices, reporter)
    return config, node


def _find_head(run: Run, turn: Turn, config: ClusterConfig, info: HostInfo) -> tuple[ResolvedConfig, Node, bool]:
    """Check this host, and from it the connection to the head; the lock is released while it waits for the head.

    Returns:
        The settings with what was found, the node, and whether the head answers.
    """
    host, wait = run.host, run.options.wait
    question = _WorkerQuestion(config, _ports_to_take(run, config, "worker"), run.running(labels.WORKER))

    def again(left: float) -> str:
        try:
            with turn.briefly():
                return ask(host, config, probe.gpu_devices, question.trying(left)).connect or "no answer"
        except HeldError as held:
            return in_words(held)

    with run.reporter.step(f"head {config.head_ip}:{config.ray_ports.gcs}") as step:
        probe = ask(host, config, info.cdi_devices, question.trying(FIRST_CONNECT_S))
        check(host, config, probe)
        have_cache(host, config, probe)
        if labels.WORKER not in run.containers:
            config = worker_room(host, config, probe, run.reporter)
            Room(host, config).check(probe.cards, probe.gpu_devices)
        node = node_of(config, probe)
        if probe.connect != "open" and wait:
            turn.end()
            with evidence(hint=_unreachable_hint(config)):
                waits.for_head(config, probe, step, again=again)
        answers = wait or probe.connect == "open"
        step.result("answers" if answers else f"{probe.connect}; the worker will retry")
    advise(host, config, probe, run.reporter, several=True)
    turn.begin()
    run.look()
    found = ResolvedConfig.of(config, node_ip=node.ip, interface=node.interface, head_ip=str(config.head_ip))
    return found, node, answers


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


def _unreachable_hint(config: ClusterConfig) -> str:
    return (
        f"Check that `vllmray up --role head` runs on {config.head_ip}, that its address is right, and that no "
        f"firewall drops TCP port {config.ray_ports.gcs} between the hosts."
    )


def _reach(host: Host, config: ClusterConfig, reporter: Reporter) -> HostInfo:
    """What the host is; raises HostError also for rootless Docker where containers are to use the host's network.

    Rootless Docker runs in a network namespace of its own, which it calls the host's (Docker's documentation, "Rootless
    mode", known limitations).
    """
    with reporter.step(f"host {host.address}") as step:
        host.ping()
        info = host.info()
        if not info.host_network and config.network == "host":
            raise HostError(
                f"{host.address}: this Docker daemon is rootless, and its host network is not this host's: other hosts "
                "can't reach a node in it",
                hint="Use the daemon that runs as root there (--host unix:///var/run/docker.sock, or `docker context "
                "use default`), or run without containers: --runtime native.",
            )
        step.result(f"{info.runtime}, {info.cpus} CPUs, {info.memory / 1024**3:.0f} GiB")
    if info.boot_command:
        reporter.note(
            f"{info.runtime} starts no container after a reboot unless its service is enabled:\n\n"
            f"    {info.boot_command}\n"
        )
    return info


def _ports_to_take(run: Run, config: ClusterConfig, role: Role) -> dict[str, int]:
    """The ports that must be free: those of the containers that are not running yet."""
    ports: dict[str, int] = {}
    if not state.usable(run.containers.get(role)):
        ports |= config.ray_ports.listening(role, metrics=config.ray_metrics)
    if role == "head" and not state.usable(run.containers.get(labels.ENGINE)):
        ports["port"] = config.port
    # With --recreate, the containers that hold these ports may be those that will be replaced.
    return {} if run.options.recreate and run.containers else ports


def _converge(run: Run, config: ClusterConfig, roles: tuple[str, ...]) -> None:
    """Remove each container that can't stay as it is, and say why."""
    found = run.containers
    if not run.options.recreate:
        state.refuse_changes(run.host, found, config, run.secrets, roles)
    stale = {role: why for role in roles if (why := state.why_stale(found, config, run.secrets, role))}
    if roles[0] in stale and config.network != "host":
        stale |= {role: ["it is in the head's network"] for role in roles if role in found and role not in stale}
    for role in (role for role in labels.STOP_ORDER if role in stale):
        with run.reporter.step(f"removing {found[role].name}") as step:
            step.event("; ".join(stale[role]))
            state.remove(run.host, found, role)
