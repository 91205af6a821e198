"""vllmray status"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from vllmray.cli.members import Everywhere, closing_all, everywhere
from vllmray.cli.options import Place, switch, with_place
from vllmray.cli.wiring import open_cluster
from vllmray.errors import ConfigError

if TYPE_CHECKING:
    from vllmray.cluster.observe.status import ClusterView


@with_place
def status(
    *,
    place: Place,
    as_json: Annotated[bool, switch("--json", help="Print one line of JSON; with --watch, one a change")] = False,
    watch: Annotated[bool, switch("--watch", help="Show each change, until Ctrl-C")] = False,
    raw: Annotated[bool, switch("--raw", help="Print the output of `ray status -v`")] = False,
) -> None:
    """Show whether the cluster is ready, and its nodes and GPUs.

    With a cluster file it shows all hosts. On a worker's host, ready means that the head lists this node as alive. Exit
    code 0: ready; 1: not ready; 4: no such cluster.
    """
    from vllmray.cluster.observe import status as views

    everyone = None if watch or raw else everywhere(place)
    if everyone is not None:
        _show_all(everyone, as_json=as_json)
        return
    with open_cluster(place) as about:
        if raw and as_json:
            raise ConfigError(
                "--raw can't be combined with --json: it prints the text of `ray status`",
                hint="Give --raw or --json, not both.",
            )
        if raw:
            for line in views.raw(about.host, about.cluster):
                print(line, flush=True)
            return
        if watch:
            _show_each(views.follow(about.host, about.cluster), as_json=as_json)
            return
        view = views.look(about.host, about.cluster)
    _show_each([view], as_json=as_json)
    if not view.ready:
        raise typer.Exit(1)


def _show_all(everyone: Everywhere, *, as_json: bool) -> None:
    """All hosts of the cluster file; the cluster is ready when its head says so."""
    from vllmray.cluster.all_hosts import look_all, no_cluster_anywhere

    with closing_all(everyone.members):
        states = look_all(everyone.members, everyone.cluster)
    if not any(state.view or state.error for state in states):
        raise no_cluster_anywhere(everyone.members, everyone.cluster)
    if as_json:
        from vllmray.output.envelope import cluster_status_data, envelope

        print(envelope("status", cluster_status_data(everyone.cluster, states)))
    else:
        from vllmray.output.tables import cluster_status_table, show

        show(cluster_status_table(everyone.cluster, states))
    head = next(state for state in states if state.role == "head")
    if head.view is None or not head.view.ready:
        raise typer.Exit(1)


def _show_each(seen: Iterable[ClusterView], *, as_json: bool) -> None:
    if as_json:
        from vllmray.output.envelope import envelope, status_data

        for view in seen:
            print(envelope("status", status_data(view)), flush=True)
    else:
        from vllmray.output.tables import show_each

        show_each(seen)
