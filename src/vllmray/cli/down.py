"""vllmray down"""

from __future__ import annotations

from typing import Annotated

import typer

from vllmray.cli.options import ClusterOption, EnvFileOption, HostOption
from vllmray.cli.wiring import cluster_name, open_host, reporter


def down(
    host: HostOption = None,
    cluster: ClusterOption = None,
    env_file: EnvFileOption = None,
    every: Annotated[bool, typer.Option("--all", help="Every cluster on the host")] = False,
) -> None:
    """Remove the cluster's containers and volumes from a host: engine, worker, head. Downloaded models stay."""
    from vllmray.cluster.down import down as take_down

    name = None if every else cluster_name(cluster, env_file)
    with open_host(host) as target:
        removed = take_down(target, name, reporter())
    print(f"removed {', '.join(removed.containers)}" if removed.containers else "nothing to remove")
