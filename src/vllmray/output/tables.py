"""Results for people: tables and the closing words of `up`."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from vllmray.cluster.status import ClusterView
from vllmray.cluster.up import Outcome


def status_table(view: ClusterView) -> RenderableType:
    """A cluster's view: a line that says whether it serves, its nodes, its containers on this host."""
    headline = Text.assemble(
        f"cluster {view.cluster}: ",
        ("ready", "bold green") if view.ready else ("not ready", "bold yellow"),
        f", {view.endpoint}" if view.endpoint and view.ready else "",
        f"; {view.problem}" if view.problem else "",
    )
    parts: list[RenderableType] = [headline]
    if view.ray and view.ray.nodes:
        parts.append(_nodes(view))
    parts.append(_containers(view))
    return Group(*parts)


def _nodes(view: ClusterView) -> Table:
    table = Table("node", "role", "GPUs used", "GPUs", box=None, pad_edge=False, header_style="bold")
    for node in view.ray.nodes if view.ray else ():
        role = "head" if node.is_head else "worker"
        table.add_row(node.ip or node.id[:12], role, f"{node.gpus_used:g}", f"{node.gpus_total:g}")
    return table


def _containers(view: ClusterView) -> Table:
    table = Table("container", "status", "restarts", "image", box=None, pad_edge=False, header_style="bold")
    for container in view.containers:
        table.add_row(container.name, container.status, str(container.restarts), container.image)
    return table


def show(renderable: RenderableType) -> None:
    """Print a result to standard output; plain text, and never wrapped, when that is no terminal."""
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
    with Live(console=console, auto_refresh=False) as live:
        for view in views:
            live.update(status_table(view), refresh=True)


def outcome_text(outcome: Outcome) -> str:
    """What `up` prints at its end: where the endpoint is, how to try it, what to do next."""
    name = outcome.config.cluster_option
    commands = f"vllmray status{name}\nvllmray logs{name} -f\nvllmray down{name}"
    if outcome.role == "worker":
        said = "joined" if outcome.ready else "is starting, and will join,"
        return f"node {outcome.config.node_ip} {said} the cluster of {outcome.config.head_ip}\n\n{commands}"
    url = f"http://{outcome.config.node_ip}:{outcome.config.port}/v1"
    if not outcome.ready:
        return f"starting; the endpoint will be {url}\n\nOn each other host:\n{outcome.worker_command}\n\n{commands}"
    return f"endpoint {url}\n\n{curl_line(outcome)}\n\n{commands}"


def curl_line(outcome: Outcome) -> str:
    """A request that can be pasted into a shell."""
    url = f"http://{outcome.config.node_ip}:{outcome.config.port}/v1/chat/completions"
    message = '[{"role": "user", "content": "What is the capital of France?"}]'
    body = f'{{"model": "{outcome.config.model}", "messages": {message}}}'
    return f"curl {url} -H 'Content-Type: application/json' -d '{body}'"
