"""vllmray down"""

from __future__ import annotations

from typing import Annotated

import typer

from vllmray.cli.options import Place, with_place
from vllmray.cli.wiring import open_cluster, open_target, reporter


@with_place
def down(
    *,
    place: Place,
    every: Annotated[bool, typer.Option("--all", help="Every cluster on the host")] = False,
) -> None:
    """Remove the cluster's containers, volumes and networks from a host. Downloaded models stay."""
    from vllmray.cluster.down import down as take_down

    report = reporter()
    with open_cluster(place) as about:
        names = list(take_down(about.host, None if every else about.cluster, report).containers)
    if every and about.runtime == "docker" and not (place.host or place.runtime):
        with open_target(None, "native") as here:  # the daemon's, and this machine's own processes
            names += take_down(here.host, None, report).containers
    print(f"removed {', '.join(names)}" if names else "nothing to remove")
