"""vllmray logs"""

from __future__ import annotations

from typing import Annotated

import typer

from vllmray.cli.options import Place, RoleChoice, with_place
from vllmray.cli.wiring import open_cluster


@with_place
def logs(
    *,
    place: Place,
    what: Annotated[
        RoleChoice | None, typer.Argument(help="Default: the engine, or on a worker's host the worker")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it is written")] = False,
    tail: Annotated[int | None, typer.Option("--tail", "-n", min=0, help="Only the last lines")] = None,
) -> None:
    """Print the log of one of the cluster's containers on a host."""
    from vllmray.cluster.logs import logs as read

    with open_cluster(place) as about:
        for line in read(about.host, about.cluster, what.value if what else None, follow=follow, tail=tail):
            print(line, flush=follow)
