"""Results for people: tables, and what `up` prints at its end."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from vllmray.cluster.spec.commands import token_words
from vllmray.cluster.spec.sizes import served_name

if TYPE_CHECKING:
    from vllmray.cluster.all_hosts import HostState
    from vllmray.cluster.observe.status import ClusterView
    from vllmray.cluster.run import Outcome
    from vllmray.images.facts import ImageFacts
    from vllmray.output.stored_results import ModelFiles


def local_time(at: float) -> str:
    """Unix seconds as local time."""
    return datetime.fromtimestamp(at, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def status_table(view: ClusterView) -> RenderableType:
    """A cluster's view: a line that says whether it serves, its nodes, its containers on this host."""
    headline = Text.assemble(
        f"cluster {view.cluster}: ",
        ("ready", "bold green") if view.ready else ("not ready", "bold yellow"),
        f", {view.endpoint}" if view.endpoint and view.ready else "",
        f"; {view.problem}" if view.problem else "",
        f", since {local_time(view.since)}" if view.since else "",
    )
    parts: list[RenderableType] = [headline]
    if view.ray and view.ray.nodes:
        parts.append(_nodes(view))
    if view.gpus:
        parts.append(_gpus(view))
    parts.append(_containers(view))
    return Group(*parts)


def cluster_status_table(cluster: str, states: Sequence[HostState]) -> RenderableType:
    """The cluster as its head sees it, and the state of every host of the cluster file."""
    head = next(state for state in states if state.role == "head")
    parts: list[RenderableType] = []
    if head.view:
        parts.append(status_table(head.view))
    else:
        headline = (f"cluster {cluster}: ", ("not ready", "bold yellow"), f"; {head.name}: {head.state}")
        parts.append(Text.assemble(*headline))
    table = Table("host", "role", "containers", "state", box=None, pad_edge=False, header_style="bold")
    for state in states:
        names = ", ".join(each.name for each in state.view.containers) if state.view else ""
        style = "" if state.view and state.view.ready else "yellow"
        table.add_row(state.name, state.role, names, Text(state.state, style=style))
    return Group(*parts, table)


def model_table(found: ModelFiles) -> RenderableType:
    """A model on each host."""
    table = Table("host", found.model, "revision", "size", box=None, pad_edge=False, header_style="bold")
    for each in found.hosts:
        state = "whole" if each.whole else "; ".join(each.wrong) or ("not whole" if each.size else "not there")
        size = f"{each.size / 1e9:.1f} GB" if each.size else ""
        table.add_row(each.host, Text(state, style="" if each.whole else "yellow"), each.revision[:12], size)
    return table


def _nodes(view: ClusterView) -> Table:
    table = Table("node", "role", "GPUs used", "GPUs", box=None, pad_edge=False, header_style="bold")
    for node in view.ray.nodes if view.ray else ():
        role = "head" if node.is_head else "worker"
        table.add_row(node.ip or node.id[:12], role, f"{node.gpus_used:g}", f"{node.gpus_total:g}")
    return table


def _gpus(view: ClusterView) -> Table:
    table = Table("GPU here", "memory used", "memory", box=None, pad_edge=False, header_style="bold")
    for gpu in view.gpus:
        used, total = (f"{size / 1024**3:.1f} GiB" for size in (gpu.used, gpu.total))
        table.add_row(f"{gpu.index}, {gpu.name}", used, total)
    return table


def _containers(view: ClusterView) -> Table:
    table = Table("container", "status", "restarts", "image", box=None, pad_edge=False, header_style="bold")
    for container in view.containers:
        table.add_row(container.name, container.status, str(container.restarts), container.image)
    return table


def show(renderable: RenderableType) -> None:
    """Print a result to standard output; plain text, and never wrapped, when that is not a terminal."""
    console = Console()
    if console.is_terminal:
        console.print(renderable)
    else:
        Console(width=200, no_color=True).print(renderable, soft_wrap=True)


def show_each(views: Iterable[ClusterView]) -> None:
    """Show each view as it comes: redrawn in place on a terminal, one after the other elsewhere."""
    console = Console()
    if not console.is_terminal:
        for view in views:
            show(status_table(view))
        return
    from rich.live import Live

    with Live(console=console, auto_refresh=False) as live:
        for view in views:
            live.update(status_table(view), refresh=True)


def image_table(name: str, facts: ImageFacts) -> RenderableType:
    """What an image contains, and what it lacks, one line for each."""
    table = Table(box=None, pad_edge=False, show_header=False)
    rows = {
        "image": name,
        "id": facts.id,
        "architecture": facts.architecture,
        "Ray": facts.versions.get("ray"),
        "vLLM": facts.vllm,
        "Python": facts.python,
        "torch": facts.versions.get("torch"),
        "CUDA": facts.cuda,
        "NCCL": f"{facts.nccl}, sha256 {facts.nccl_sha256}" if facts.nccl_sha256 else None,
        "entrypoint": " ".join(facts.entrypoint),
        "user": facts.user or "root",
    }
    for title, value in rows.items():
        table.add_row(title, value or Text("none", style="yellow"))
    return table


@dataclass(frozen=True, slots=True)
class Access:
    """How a client reaches the endpoint."""

    url: str
    """Ends in /v1."""
    header_file: Path | None
    """A file with the Authorization header; None without an API key."""
    certificate_file: Path | None
    """The server's certificate, if it is not signed by a public CA."""


def outcome_text(outcome: Outcome, access: Access | None, *, whole: bool = False) -> str:
    """What `up` prints at its end: where the endpoint is, how to try it, what to do next.

    Args:
        access: of a head.
        whole: every node was started.
    """
    place = outcome.config.place_option
    commands = f"vllmray status{place}\nvllmray logs{place} -f\nvllmray down{place}"
    if access is None:
        said = "joined" if outcome.ready else "is starting, and will join,"
        return f"node {outcome.config.node_ip} {said} the cluster of {outcome.config.head_ip}\n\n{commands}"
    if not outcome.ready and whole:
        return f"starting; the endpoint will be {access.url}\n\n{commands}"
    if not outcome.ready:
        return (
            f"starting; the endpoint will be {access.url}\n\n"
            f"On each other host, {token_words(outcome.config)}:\n{outcome.worker_command}\n\n{commands}"
        )
    return f"endpoint {access.url}\n\n{curl_line(access, served_name(outcome.config))}\n\n{commands}"


def curl_line(access: Access, model: str) -> str:
    """A request that can be pasted into a shell; it reads the key from its file, so that no process list shows it."""
    question = {"role": "user", "content": "What is the capital of France?"}
    argv = ["curl", f"{access.url}/chat/completions"]
    argv += ["--cacert", str(access.certificate_file)] if access.certificate_file else []
    argv += ["-H", f"@{access.header_file}"] if access.header_file else []
    # A small model that repeats itself would continue to the end of its context.
    body = {"model": model, "messages": [question], "max_tokens": 100}
    argv += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
    return shlex.join(argv)
