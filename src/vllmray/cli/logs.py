"""vllmray logs"""

from __future__ import annotations

from typing import Annotated

import typer

from vllmray.cli.options import Place, RoleChoice, switch, with_place
from vllmray.cli.wiring import open_cluster


@with_place
def logs(
    *,
    place: Place,
    what: Annotated[
        RoleChoice | None, typer.Argument(metavar="[ROLE]", help="head, worker or engine; without it, engine or worker")
    ] = None,
    follow: Annotated[bool, switch("--follow", "-f", help="Follow log output")] = False,
    tail: Annotated[
        int | None, typer.Option("--tail", "-n", metavar="LINES", min=0, help="Print only the last lines")
    ] = None,
) -> None:
    """Print the log of one of the cluster's containers."""
    from vllmray.cluster.logs import logs as read

    with open_cluster(place) as about:
        for line in read(about.host, about.cluster, what.value if what else None, follow=follow, tail=tail):
            print(line, flush=follow)
