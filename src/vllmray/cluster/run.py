"""One running `up`: what it has created so far, and what is done with that when it fails or is interrupted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from vllmray.cluster import state
from vllmray.cluster.lock import NOBODY, Holder, Turn
from vllmray.cluster.observe.watch import log_tail
from vllmray.cluster.probe.model import Look
from vllmray.cluster.spec import labels
from vllmray.cluster.spec.contents import Contents, Secrets
from vllmray.cluster.spec.payload import contents
from vllmray.config.models import ClusterConfig, Role
from vllmray.config.resolved import ResolvedConfig
from vllmray.errors import UserInterruptError, VllmrayError, WaitTimeoutError, say_left
from vllmray.hosts.base import Container, ContainerSpec, Host
from vllmray.payload.protocol import RayStatus
from vllmray.reporter import Reporter


@dataclass(frozen=True, slots=True)
class UpOptions:
    """How `up` proceeds, apart from what it creates."""

    wait: bool = True
    recreate: bool = False
    retain: bool = False
    derive: bool = True
    """Add Ray to an image that lacks it."""
    cache: Path | None = None
    """A folder of this machine that caches what images contain."""
    whole: bool = False
    """The other nodes are started by other means: no command for other hosts is shown."""
    look: Look = field(default_factory=Look)
    """What is known of the model, or whether to ask the host."""
    secrets: Callable[[ClusterConfig], Secrets] = Secrets.of
    """The cluster's, once the node's address is known: a certificate is for it."""
    keep: Callable[[Secrets], object] = lambda _: None
    """Called with the secrets once they are the cluster's: when the head runs with them; for a worker when the head has
    accepted it.
    """
    caller: str | None = None
    """UID:GID to run containers as where the image names no user but root."""
    holder: Holder = NOBODY
    """Who holds the cluster's lock, for other commands that wait for it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What `up` created or found."""

    role: Role
    config: ResolvedConfig
    """With the address and interface that were found filled in."""
    worker_command: str
    ready: bool
    status: RayStatus | None = None
    made: tuple[Container, ...] = ()
    """The containers that it created; others were there."""


@dataclass(slots=True)
class Run:
    """One running `up`, and what it has created so far."""

    host: Host
    reporter: Reporter
    options: UpOptions
    cluster: str
    containers: dict[str, Container] = field(init=False)
    secrets: Secrets = field(default_factory=Secrets)
    made: list[Container] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.look()

    def look(self) -> None:
        """Read which containers exist now."""
        found = state.by_role(self.host, self.cluster)
        self.containers = {role: container for role, container in found.items() if role != labels.PROBE}

    def turn(self, image: str) -> Turn:
        """The lock that keeps other commands from changing the cluster on this host."""
        return Turn(self.host, self.cluster, image=image, holder=self.options.holder, reporter=self.reporter)

    @property
    def contents(self) -> Contents:
        """The files for the containers."""
        return contents().with_secrets(self.secrets)

    @property
    def made_engine(self) -> bool:
        """Whether the engine's container is this run's own."""
        return any(container.labels[labels.ROLE] == labels.ENGINE for container in self.made)

    def running(self, role: str) -> str | None:
        """The name of the container of that role, when it can stay as it is."""
        container = self.containers.get(role)
        return container.name if container and state.usable(container) else None

    def start(self, title: str, spec: ContainerSpec, role: str) -> None:
        """Create and start a container unless it is there already."""
        with self.reporter.step(title) as step:
            if state.usable(self.containers.get(role)):
                step.result("running already")
                return
            # The volume of a container that was removed with `docker rm`, which keeps it unless --volumes is given.
            self.host.prune(labels.selector(self.cluster, role))
            container = self.host.create_and_start(spec)
            self.containers[role] = container
            self.made.append(container)
            step.result(container.name)


@contextmanager
def cleaning_up(run: Run, config: ClusterConfig) -> Iterator[None]:
    """On any error, remove what this run created; on Ctrl-C, leave it running and say so."""
    try:
        with evidence(log=lambda: _last_log(run)):
            yield
    except KeyboardInterrupt:
        raise _interrupted(run, config) from None
    except UserInterruptError:
        raise  # of what ran meanwhile, which says what it left; the rest stays as well
    except BaseException as error:
        if run.made and run.options.retain:
            kept = ", ".join(container.name for container in run.made)
            _say(error, f"Kept: {kept}. `vllmray down{config.place_option}` removes them.")
        else:
            _take_back(run, config, error)
        raise


def _take_back(run: Run, config: ClusterConfig, why: BaseException) -> None:
    """Remove what this run created; what can't be removed is named in the error `why`."""
    if not run.made:
        return
    made = {container.labels[labels.ROLE]: container for container in run.made}
    try:
        with run.turn(config.image), run.reporter.step("removing what was started"):
            remove_made(run.host, config.cluster, made)
    except Exception as error:  # noqa: BLE001  # whatever it is, the original error is the one to report
        left = ", ".join(container.name for container in made.values()) or "volumes and networks"
        say_left(why, f"{left} on {run.host.address}", error)
        _say(why, f"`vllmray down{config.place_option}` removes what is left.")


def remove_made(host: Host, cluster: str, made: dict[str, Container]) -> None:
    """Remove containers that `up` created, and the cluster's volumes and networks where nothing of it is left.

    Args:
        made: by role; those that could not be removed are still in it after an error.
    """
    state.remove(host, made, *labels.STOP_ORDER)
    if not state.by_role(host, cluster):
        host.prune(labels.selector(cluster))


def _say(error: BaseException, line: str) -> None:
    """Add a line to what an error tells the user to do."""
    if isinstance(error, VllmrayError):
        error.hint = f"{error.hint or ''}\n{line}".strip()
    else:
        error.add_note(line)


def _interrupted(run: Run, config: ClusterConfig) -> UserInterruptError:
    if not run.containers:
        return UserInterruptError(f"interrupted; nothing of cluster {config.cluster} runs on {run.host.address}")
    names = ", ".join(container.name for container in run.containers.values())
    place = config.place_option
    return UserInterruptError(
        f"stopped waiting; still running on {run.host.address}: {names}",
        hint=f"The same command continues to wait; `vllmray status{place}` shows the cluster; "
        f"`vllmray down{place}` removes it.",
    )


@contextmanager
def evidence(*, log: Callable[[], str | None] = lambda: None, hint: str | None = None) -> Iterator[None]:
    """Give a wait that timed out the end of a log and a hint."""
    try:
        yield
    except WaitTimeoutError as error:
        error.details = error.details or log()
        error.hint = error.hint or hint or "Raise the timeout, or see the log above for what it waits for."
        raise


def _last_log(run: Run) -> str | None:
    for role in (labels.ENGINE, labels.WORKER, labels.HEAD):
        if role in run.containers:
            container = run.containers[role]
            return f"The end of the log of {container.name}:\n{log_tail(run.host, container.id)}"
    return None
