"""What `vllmray plan` prints: the layouts that can serve, the best first, and why the others can't."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from vllmray.cluster.spec.commands import up_command
from vllmray.cluster.spec.sizes import engine_of, with_layout
from vllmray.config.models import ClusterConfig
from vllmray.model.layouts import HostGpus, Layout
from vllmray.model.memory import GIB
from vllmray.model.model import Model, parameters_of, unknown_figures

SHOWN = 8
"""Layouts of each kind, unless all are asked for."""


def plan_table(
    model: Model,
    hosts: Sequence[HostGpus],
    layouts: Sequence[Layout],
    config: ClusterConfig,
    *,
    every: bool,
    env_file: str | None = None,
) -> RenderableType:
    """The model and the GPUs, a table of what fits, a list of what does not.

    Args:
        env_file: as it was typed.
    """
    fitting = [layout for layout in layouts if not layout.rejected]
    others = [layout for layout in layouts if layout.rejected]
    most = max(len(fitting), len(others)) if every else SHOWN
    parts: list[RenderableType] = [Text(_headline(model, hosts))]
    if fitting:
        length = engine_of(config, model).max_model_len
        units = f"GiB per GPU, concurrent sequences of {length} tokens, longest context, network KiB per token:"
        parts += [
            Text(units, style="dim"),
            _table(fitting[:most]),
            Text(f"\n{_how(fitting[0], config, env_file)}", style="bold"),
        ]
    else:
        parts.append(Text("no layout fits", style="bold yellow"))
    if others:
        parts += [Text(), Text("rejected:"), _rejections(others[:most])]
    left_out = len(fitting[most:]) + len(others[most:])
    if left_out:
        parts.append(Text(f"{left_out} more: --all"))
    parts += [Text(line, style="yellow") for line in unknown_figures(model)]
    if model.shape.config.has_other_parts and model.checkpoint_bytes is None:
        parts.append(
            Text("The vision or audio encoder is not included: the size of the checkpoint is not known.", style="dim")
        )
    parts.append(Text("The memory overhead is an estimate: docs/gpu-acceptance.md.", style="dim"))
    return Group(*parts)


def _headline(model: Model, hosts: Sequence[HostGpus]) -> str:
    limit = f", at most {model.longest_context} tokens" if model.longest_context else ""
    listed = ", ".join(f"{host.name} with {host.summary}" for host in hosts)
    return f"{model.name}: {parameters_of(model)}{limit}\n{listed}\n"


def _table(layouts: Sequence[Layout]) -> Table:
    names = ("TP", "PP", "GPUs", "replicas", "weights", "overhead", "sequences", "longest", "network")
    table = Table(*names, box=None, pad_edge=False, header_style="bold")
    for layout in layouts:
        table.add_row(
            str(layout.tensor_parallel_size),
            str(layout.pipeline_parallel_size),
            str(layout.world_size),
            str(layout.replicas),
            _range([stage.weights for stage in layout.stages]),
            _range([stage.overhead for stage in layout.stages]),
            _known(layout.sequences),
            _known(layout.longest_context),
            f"{layout.network_bytes / 1024:.0f}",
        )
    return table


def _known(count: int | None) -> str:
    return "not known" if count is None else str(count)


def _range(sizes: Sequence[int | None]) -> str:
    """Of the lightest and the heaviest stage, in GiB."""
    known = [size / GIB for size in sizes if size is not None]
    if len(known) < len(sizes):
        return "not known"
    low, high = f"{min(known):.1f}", f"{max(known):.1f}"
    return low if low == high else f"{low}-{high}"


def _how(best: Layout, config: ClusterConfig, env_file: str | None) -> str:
    """The command that starts this layout."""
    return up_command(with_layout(config, best), env_file=env_file)


def _rejections(layouts: Sequence[Layout]) -> Table:
    table = Table.grid(padding=(0, 2))
    for layout in layouts:
        table.add_row(f"TP {layout.tensor_parallel_size}", f"PP {layout.pipeline_parallel_size}", layout.rejected)
    return table
