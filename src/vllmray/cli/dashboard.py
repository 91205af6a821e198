"""vllmray dashboard"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from vllmray.cli.options import JsonOption, Place, with_place
from vllmray.cli.wiring import open_cluster
from vllmray.errors import ClusterStateError, HostError


@with_place
def dashboard(
    *,
    place: Place,
    port: Annotated[
        int | None,
        typer.Option("--port", metavar="PORT", min=1, max=65535, help="Local port of the tunnel; without it, Ray's"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the URL of Ray's dashboard, through a tunnel.

    The dashboard listens on its host's loopback address and asks for Ray's token (`vllmray token`). For a host that
    is reached over SSH a tunnel is opened, until Ctrl-C.
    """
    from vllmray.cluster.observe.status import look

    with open_cluster(place) as about:
        view = look(about.host, about.cluster)
        ports = view.settings.get("ray_ports", {})
        if view.role != "head" or "dashboard" not in ports:
            head = view.settings.get("head_ip")
            raise ClusterStateError(f"the dashboard is on the head's host, {head}", hint="Name it with --host.")
        if view.settings.get("network", "host") != "host":
            raise ClusterStateError("the dashboard is reachable only inside the cluster's Docker network")
        there = int(ports["dashboard"])
        address = about.host.address
    if not address.startswith("ssh://"):
        if address.startswith(("tcp://", "https://", "http://")):
            raise HostError(
                f"cannot open a tunnel through {address}: the dashboard listens on the host's loopback address",
                hint=f"Use SSH: ssh -N -L {there}:127.0.0.1:{there} HOST",
            )
        _say(f"http://127.0.0.1:{there}", as_json=as_json)
        return
    from vllmray.hosts.ssh import forward

    with forward(address, port or there, there) as process:
        _say(f"http://127.0.0.1:{port or there}", as_json=as_json)
        print("Ctrl-C closes the tunnel", file=sys.stderr)
        process.wait()


def _say(url: str, *, as_json: bool) -> None:
    if as_json:
        from vllmray.output.envelope import envelope
        from vllmray.output.results import Dashboard

        url = envelope("dashboard", Dashboard(url))
    print(url, flush=True)
