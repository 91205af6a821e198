"""vllmray logs"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from vllmray.cli.options import ClusterOption, EnvFileOption, HostOption
from vllmray.cli.wiring import cluster_name, open_host


class LogChoice(StrEnum):
    """Whose log."""

    head = "head"
    worker = "worker"
    engine = "engine"


def logs(  # the command line's own breadth
    what: Annotated[
        LogChoice | None, typer.Argument(help="Default: the engine, or on a worker's host the worker")
    ] = None,
    host: HostOption = None,
    cluster: ClusterOption = None,
    env_file: EnvFileOption = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it is written")] = False,
    tail: Annotated[int | None, typer.Option("--tail", "-n", min=0, help="Only the last lines")] = None,
) -> None:
    """Print the log of one of the cluster's containers on a host."""
    from vllmray.cluster.logs import logs as read

    name = cluster_name(cluster, env_file)
    with open_host(host) as target:
        for line in read(target, name, what.value if what else None, follow=follow, tail=tail):
            print(line, flush=follow)
