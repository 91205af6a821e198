"""vllmray events"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Annotated

import typer

from vllmray.cli.members import Everywhere, closing_all, everywhere, say_lost
from vllmray.cli.options import Place, switch, with_place
from vllmray.cli.wiring import open_cluster
from vllmray.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vllmray.cluster.observe.history import Row

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@with_place
def events(
    *,
    place: Place,
    follow: Annotated[bool, switch("--follow", "-f", help="Print new events as they occur, until Ctrl-C")] = False,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="Print only events of the last 30s, 90m, 2h, 1d12h")
    ] = None,
    as_json: Annotated[bool, switch("--json", help="Print one line of JSON; with --follow, one an event")] = False,
) -> None:
    """Print the cluster's events: joins, losses, restarts.

    With a cluster file, those of all hosts. They come from the logs of the containers, so none is left of a container
    that was removed, and from the events that the Docker daemons still have.
    """
    from vllmray.cluster.observe import events as told

    begin = None if since is None else time.time() - seconds_of(since)
    everyone = everywhere(place)
    if everyone is not None:
        _show_all(everyone, begin, follow=follow, as_json=as_json)
        return
    with open_cluster(place) as about:
        if follow:
            for row in told.follow(about.host, about.cluster, since=begin):
                _show(about.cluster, about.host.address, [row], as_json=as_json)
        else:
            rows = told.history(about.host, about.cluster, since=begin)
            _show(about.cluster, about.host.address, rows, as_json=as_json)


def _show_all(everyone: Everywhere, begin: float | None, *, follow: bool, as_json: bool) -> None:
    """One history of all hosts of the cluster file."""
    from vllmray.cluster.all_hosts import follow_all, history_all

    hosts = ", ".join(member.name for member in everyone.members)
    with closing_all(everyone.members):
        if follow:
            for row in follow_all(everyone.members, everyone.cluster, since=begin, lost=say_lost):
                _show(everyone.cluster, hosts, [row], as_json=as_json)
        else:
            rows = history_all(everyone.members, everyone.cluster, since=begin, lost=say_lost)
            _show(everyone.cluster, hosts, rows, as_json=as_json)


def seconds_of(text: str) -> float:
    """Seconds of a duration such as "90m" or "1d12h".

    Raises:
        ConfigError: the text is not a duration.
    """
    if not re.fullmatch(r"(\d{1,9}[smhd])+", text):
        raise ConfigError(f"--since: invalid duration {text!r}", hint="For example: --since 2h (s, m, h, d)")
    return float(sum(int(number) * UNITS[unit] for number, unit in re.findall(r"(\d+)([smhd])", text)))


def _show(cluster: str, host: str, rows: Sequence[Row], *, as_json: bool) -> None:
    if as_json:
        from vllmray.output.envelope import envelope, events_data

        print(envelope("events", events_data(cluster, host, rows)), flush=True)
        return
    from vllmray.output.events import row_line

    for row in rows:
        print(row_line(row), flush=True)
