"""The three things `up` waits for: the head to answer, a worker to be listed, the engine to serve."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vllmray.cluster.observe.watch import ExitCheck, Watch, log_tail, watch_argv
from vllmray.cluster.probe.versions import check_token
from vllmray.cluster.spec import labels
from vllmray.cluster.spec.containers import Node, container_name, gate, gcs_address
from vllmray.config.models import ClusterConfig
from vllmray.config.resolved import ResolvedConfig
from vllmray.errors import WorkloadError
from vllmray.hosts.base import Container, Host
from vllmray.images.recipe import OLDEST_RAY_TEXT
from vllmray.payload.protocol import EngineState, HostAnswer, RayStatus
from vllmray.reporter import Reporter, Step
from vllmray.wait import NotReady, Ready, wait_until

NEWS_TIMEOUT_S = 1.0
POLL_S = 0.1
"""Between observations: a watch whose container is going away answers at once, again and again; so does a host that
another command is changing.
"""
CONNECT_S = 10.0
GLIMPSE_S = 3.0

PHASE_WORDS = {
    "importing": "importing vLLM",
    "waiting": "waiting for GPUs",
    "starting": "starting",
    "ready": "ready",
    "given-up": "crash-looped; not restarting",
    "insecure": "stopped, not secure",
}


def for_head(config: ClusterConfig, first: HostAnswer, step: Step, *, again: Callable[[float], str]) -> None:
    """Wait until the head's port accepts a connection from this host.

    Args:
        first: the answer of the first try, reported at once.
        again: tries for that many seconds and returns "open" or what it saw instead.
    """
    address = gcs_address(config)
    seen = [first.connect or "no answer"]

    def probe(left: float) -> Ready[None] | NotReady:
        outcome = seen.pop() if seen else again(min(left, CONNECT_S))
        return Ready(None) if outcome == "open" else NotReady(_in_words(outcome))

    wait_until(
        probe,
        what=f"an answer from the head at {address}",
        timeout=config.join_timeout,
        step=step,
        poll_interval=POLL_S,
    )


def _in_words(outcome: str) -> str:
    words = {
        "refused": "connection refused (nothing listens there yet)",
        "no answer": "no answer (host down, wrong address, or a firewall drops it)",
    }
    return words.get(outcome, outcome)


def for_worker(
    host: Host,
    config: ResolvedConfig,
    node: Node,
    containers: Mapping[str, Container],
    reporter: Reporter,
    *,
    anew: bool = False,
) -> RayStatus:
    """Wait until the head lists this node alive with its GPUs.

    Args:
        anew: it was in the cluster before, and may still be listed as it was: only the one that runs here now counts.
    """
    worker = containers[labels.WORKER]
    argv = watch_argv(gcs_address(config))
    with reporter.step("joining the cluster") as step, Watch(host, worker.id, argv) as watch:
        seen = _Seen(host, config, watch, ExitCheck(host, [worker]))
        seen.only_own = anew
        status = wait_until(
            lambda left: seen.node(left, node),
            poll_interval=POLL_S,
            what=f"node {node.ip} to join the cluster",
            timeout=config.join_timeout,
            step=step,
        )
        gpus = status.node(node.ip).gpus_total  # type: ignore[union-attr]  # it is listed: that was waited for
        step.result(f"{node.ip} with {gpus:g} GPU{'' if gpus == 1 else 's'}")
    return status


def for_engine(
    host: Host, config: ResolvedConfig, containers: Mapping[str, Container], reporter: Reporter, *, fresh: bool
) -> RayStatus:
    """Wait until Ray has the GPUs, then until the engine has answered a completion.

    Args:
        fresh: the engine's container was made for this wait, so that any death of the engine counts.
    """
    head, engine = containers[labels.HEAD], containers[labels.ENGINE]
    argv = watch_argv(gcs_address(config), gate=gate(config), engine=True)
    with Watch(host, head.id, argv) as watch:
        seen = _Seen(host, config, watch, ExitCheck(host, [head, engine]))
        seen.deaths = 0 if fresh else None
        seen.engine_from = engine.started_unix
        with reporter.step(f"{config.world_size} GPU{'' if config.world_size == 1 else 's'} in Ray") as step:
            status = wait_until(
                lambda left: seen.gpus(left, step),
                what="GPUs",
                timeout=config.join_timeout,
                step=step,
                poll_interval=POLL_S,
            )
            step.result(_nodes(status))
        with reporter.step("engine") as step:
            status = wait_until(
                lambda left: seen.engine(left, step, engine),
                what="an answer from the engine",
                timeout=config.engine_timeout,
                step=step,
                poll_interval=POLL_S,
            )
            step.result("answered a completion")
    return status


class _Seen:
    """The probes of one stream of observations; a container that ends by itself ends the wait."""

    def __init__(self, host: Host, config: ResolvedConfig, watch: Watch, exits: ExitCheck) -> None:
        self._host = host
        self._config = config
        self._watch = watch
        self._exits = exits
        self._last = RayStatus(error="it is starting")
        self._joined: set[str] = set()
        self._glimpsed_at = float("inf")
        self.deaths: int | None = None
        """How often the engine had ended by itself before the wait; None for as often as is seen first."""
        self.only_own = False
        """The node must be the one whose raylet runs in the watch's container."""
        self.engine_from = 0.0
        """What was said before that time, in unix seconds of the engine's host, was said by an earlier engine."""

    def _look(self, left: float) -> RayStatus:
        news = self._watch.latest(min(left, NEWS_TIMEOUT_S)) or self._last
        self._last = news.said_after(self.engine_from)
        self._exits.check()
        if self._last.engine:
            self._check_deaths(self._last.engine)
        check_token(self._host, self._config, self._last.error or "")
        return self._last

    def node(self, left: float, node: Node) -> Ready[RayStatus] | NotReady:
        """Whether the head lists that node with its GPUs."""
        status = self._look(left)
        if status.error:
            return NotReady(_no_answer(status.error))
        listed = status.node(node.ip)
        if listed is None or listed.gpus_total < int(node.gpus):
            return NotReady(f"{node.ip} is not listed by the head yet; it has {_nodes(status)}")
        if self.only_own and listed.id != status.local_node_id:
            return NotReady(f"{node.ip} is still listed as the node from before the restart")
        return Ready(status)

    def gpus(self, left: float, step: Step) -> Ready[RayStatus] | NotReady:
        """Whether the GPUs suffice; reports each node as it joins."""
        status = self._look(left)
        if status.error:
            return NotReady(_no_answer(status.error))
        for node in status.nodes:
            if node.id not in self._joined:
                self._joined.add(node.id)
                role = "head" if node.is_head else "worker"
                step.event(f"{node.ip or node.id[:12]} joined ({role}, {node.gpus_total:g} GPU)")
        return Ready(status) if status.shortfall == "" else NotReady(f"{status.shortfall}; {_nodes(status)}")

    def engine(self, left: float, step: Step, engine: Container) -> Ready[RayStatus] | NotReady:
        """Whether launch.py says that a completion was answered; shows where its log is meanwhile."""
        # The last observation may hold the answer already: nothing new comes when nothing changes.
        status = self._last if self._last.engine and self._last.engine.phase == "ready" else self._look(left)
        if status.engine is None:
            return NotReady("its container is starting")
        if status.engine.phase == "ready":
            return Ready(status)
        if self._glimpsed_at - left >= GLIMPSE_S:
            self._glimpsed_at = left
            step.glimpse(log_tail(self._host, engine.id, lines=1))
        words = PHASE_WORDS[status.engine.phase]
        return NotReady(f"{words}: {status.engine.detail}" if status.engine.detail not in ("", words) else words)

    def _check_deaths(self, state: EngineState) -> None:
        """Raise when the engine ended by itself: it is restarted, but a command that waits for it reports that now."""
        self.deaths = state.deaths if self.deaths is None else self.deaths
        if state.phase == "insecure":
            raise WorkloadError(
                f"{self._host.address}: the engine in {container_name(self._config, labels.ENGINE)} was stopped, "
                f"because the cluster is not secure: {state.detail}",
                hint=f"Recreate them with a Ray that supports token authentication ({OLDEST_RAY_TEXT} or newer): "
                f"vllmray up --role head --recreate{self._config.place_option}",
            )
        if state.deaths > self.deaths or state.phase == "given-up":
            name = container_name(self._config, labels.ENGINE)
            raise WorkloadError(
                f"{self._host.address}: the engine in {name} ended by itself",
                details=log_tail(self._host, name),
                hint=f"The whole log, if it is kept (--retain): vllmray logs engine{self._config.place_option}",
            )


def _no_answer(error: str) -> str:
    return f"no answer from Ray yet: {error.splitlines()[0][:150]}"


def _nodes(status: RayStatus) -> str:
    """As in "10.0.0.1: 2 GPU, 10.0.0.2: 2 GPU"."""
    return ", ".join(f"{node.ip or node.id[:12]}: {node.gpus_total:g} GPU" for node in status.nodes) or "no nodes"
