"""vllmray down"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

from vllmray.cli.host_record import HostRecord
from vllmray.cli.mark import clusters_known_here, unmark
from vllmray.cli.members import Everywhere, board, closing_all, everywhere
from vllmray.cli.options import JsonOption, Place, switch, with_place
from vllmray.cli.wiring import holder, open_all, open_cluster, reporter
from vllmray.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vllmray.cluster.down import Removed
    from vllmray.hosts.base import Host


@with_place
def down(
    *,
    place: Place,
    every: Annotated[bool, switch("--all", help="Every cluster on the host")] = False,
    force: Annotated[
        bool,
        switch("--force", help="Kill containers that do not stop, and do not wait for another command's lock"),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove the cluster's containers, volumes and networks.

    With a cluster file, from all of its hosts. Downloaded models stay.
    """
    from vllmray.cluster.down import down as take_down
    from vllmray.cluster.down import force_down

    everyone = None if every else everywhere(place)
    if everyone is not None:
        _down_all(everyone, force=force, as_json=as_json)
        return
    report = reporter()
    with ExitStack() as opened:
        cluster = None
        if every:
            hosts = opened.enter_context(open_all(place))
        else:
            about = opened.enter_context(open_cluster(place))
            cluster, hosts = about.cluster, [about.host]
        if force:
            names = _on_each(hosts, lambda host: force_down(host, cluster, report))
        else:
            names = [
                name for host in hosts for name in take_down(host, cluster, report, holder=holder("down")).containers
            ]
        for host in hosts:
            unmark(host, *([cluster] if cluster else clusters_known_here()))
    _say(cluster, names, as_json=as_json)


def _say(cluster: str | None, names: list[str], *, as_json: bool) -> None:
    if as_json:
        from vllmray.output.envelope import envelope
        from vllmray.output.results import Down

        print(envelope("down", Down(cluster, names)))
        return
    print(f"removed {', '.join(names)}" if names else "nothing to remove")


def _down_all(everyone: Everywhere, *, force: bool, as_json: bool) -> None:
    """From every host of the cluster file."""
    from vllmray.cluster.all_hosts import down_all

    with board() as shown, closing_all(everyone.members):
        removed = down_all(everyone.members, everyone.cluster, shown, holder=holder("down"), force=force)
        for member in everyone.members:
            unmark(member.host, everyone.cluster)
        HostRecord(everyone.cluster).remove(*removed)
    names = [f"{name} {container}" for name, found in removed.items() for container in found.containers]
    _say(everyone.cluster, names, as_json=as_json)


def _on_each(hosts: Sequence[Host], act: Callable[[Host], Removed]) -> list[str]:
    """What was removed from all hosts; failures are raised after all of them were tried."""
    names: list[str] = []
    failures: list[HostError] = []
    for host in hosts:
        try:
            names += act(host).containers
        except HostError as error:
            failures.append(error)
    if failures:
        first = failures[0]
        first.message = "; ".join(error.message for error in failures)
        first.details = "\n".join(error.details for error in failures if error.details) or None
        raise first
    return names
