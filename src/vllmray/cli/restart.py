"""vllmray restart"""

from __future__ import annotations

from typing import Annotated

import typer

from vllmray.cli.members import Everywhere, board, closing_all, everywhere
from vllmray.cli.options import JsonOption, Place, RoleChoice, switch, with_place
from vllmray.cli.wiring import holder, open_cluster, reporter


@with_place
def restart(
    *,
    place: Place,
    what: Annotated[
        RoleChoice | None,
        typer.Argument(metavar="[ROLE]", help="head (with the engine), worker or engine; without it, engine or worker"),
    ] = None,
    no_wait: Annotated[bool, switch("--no-wait", help="Return when it has started")] = False,
    as_json: JsonOption = False,
) -> None:
    """Restart the engine or a node and wait for it.

    The container keeps its settings, files and volumes. The head and the engine are ready when the engine has answered
    a completion, a worker when the head lists it.
    """
    from vllmray.cluster.restart import RestartOptions
    from vllmray.cluster.restart import restart as act
    from vllmray.config.settings import load

    everyone = everywhere(place)
    if everyone is not None:
        _restart_all(everyone, what.value if what else None, wait=not no_wait, as_json=as_json)
        return
    report = reporter()
    flags = {"cluster": place.cluster, "insecure_docker_tcp": place.insecure_docker_tcp}
    config = load(flags, env_file=place.env_file, fields=(*flags, "join_timeout", "engine_timeout")).config
    config = config.typed_on(place.host)
    with open_cluster(place) as about:
        options = RestartOptions(about.runtime, wait=not no_wait, holder=holder("restart"))
        names = act(about.host, config, what.value if what else None, options, report)
    if as_json:
        from vllmray.output.envelope import envelope
        from vllmray.output.results import Restart

        print(envelope("restart", Restart(config.cluster, about.host.address, list(names), ready=not no_wait)))
        return
    again = f"`vllmray status{config.place_option}` shows when it is ready" if no_wait else "ready"
    print(f"restarted {', '.join(names)}; {again}")


def _restart_all(everyone: Everywhere, role: str | None, *, wait: bool, as_json: bool) -> None:
    """On the hosts of the cluster file that have that role."""
    from vllmray.cluster.all_hosts import restart_all

    with board() as shown, closing_all(everyone.members):
        found = restart_all(everyone.members, role, shown, wait=wait, holder=holder("restart"))
    names = [f"{name} {container}" for name, containers in found.items() for container in containers]
    if as_json:
        from vllmray.output.envelope import envelope
        from vllmray.output.results import Restart

        print(envelope("restart", Restart(everyone.cluster, ", ".join(found), names, ready=wait)))
        return
    print(f"restarted {', '.join(names)}; {'ready' if wait else '`vllmray status` shows when it is ready'}")
