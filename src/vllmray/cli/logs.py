"""vllmray logs"""

from __future__ import annotations

from typing import Annotated

import typer

from vllmray.cli.members import Everywhere, closing_all, everywhere, say_lost
from vllmray.cli.options import Place, RoleChoice, switch, with_place
from vllmray.cli.wiring import open_cluster, reporter


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
    bundle: Annotated[
        str | None,
        typer.Option(
            "--bundle",
            metavar="[FILE]",
            help="Write versions, settings, status, events and logs to a .tar.gz for a bug report, without secrets",
        ),
    ] = None,
    as_json: Annotated[bool, switch("--json", help="Print one line of JSON; with --follow, one a line")] = False,
) -> None:
    """Print the log of one of the cluster's containers.

    With a cluster file, the logs of all containers on all hosts, by time.
    """
    if bundle is not None:
        _bundle(place, bundle, as_json=as_json)
        return
    from vllmray.cluster.logs import logs as read

    everyone = everywhere(place)
    if everyone is not None:
        _show_all(everyone, what.value if what else None, follow=follow, tail=tail, as_json=as_json)
        return
    with open_cluster(place) as about:
        lines = read(about.host, about.cluster, what.value if what else None, follow=follow, tail=tail)
        if not as_json:
            for line in lines:
                print(line, flush=follow)
            return
        from vllmray.output.envelope import envelope
        from vllmray.output.results import Logs

        for part in ([line] for line in lines) if follow else (list(lines),):
            print(envelope("logs", Logs(about.cluster, about.host.address, part)), flush=follow)


def _show_all(everyone: Everywhere, role: str | None, *, follow: bool, tail: int | None, as_json: bool) -> None:
    """Of all hosts of the cluster file, each line with its host and role."""
    from vllmray.cluster.all_hosts import logs_all

    with closing_all(everyone.members):
        lines = logs_all(everyone.members, everyone.cluster, role, follow=follow, tail=tail, lost=say_lost)
        if not as_json:
            from vllmray.output.log_lines import show_lines

            show_lines(lines, [member.name for member in everyone.members])
            return
        from vllmray.output.envelope import envelope
        from vllmray.output.results import Logs

        hosts = ", ".join(member.name for member in everyone.members)
        texts = (f"{line.host} {line.role} | {line.text}" for line in lines)
        for part in ([text] for text in texts) if follow else (list(texts),):
            print(envelope("logs", Logs(everyone.cluster, hosts, part)), flush=follow)


def _bundle(place: Place, file: str, *, as_json: bool) -> None:
    from vllmray.cli.bundle import make_bundle

    report = reporter()
    made = make_bundle(place, file)
    for line in made.missing:
        report.warning(f"not in the bundle: {line}")
    if as_json:
        from vllmray.output.envelope import envelope

        print(envelope("logs --bundle", made))
        return
    print(made.bundle)
