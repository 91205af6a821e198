"""vllmray up, of all hosts of the cluster file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllmray.cli.credentials import StoreKeeper, access_to
from vllmray.cli.host_record import HostRecord
from vllmray.cli.mark import docker_mark, unmark
from vllmray.cli.members import board, chosen, closing_all, member_of, members_of
from vllmray.cli.named_files import with_named_files
from vllmray.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vllmray.cli.up_request import DryRunChoice, UpRequest
    from vllmray.cluster.members import Member
    from vllmray.cluster.phases.base import ClusterRun
    from vllmray.cluster.probe.model import Look
    from vllmray.cluster.run import Outcome, UpOptions
    from vllmray.config.cluster_settings import LoadedCluster
    from vllmray.reporter import Reporter


def up_hosts(request: UpRequest, options: UpOptions) -> None:
    """Start the cluster on the hosts of the file, and print where its endpoint is.

    Raises:
        ConfigError: there is no cluster file, it lists no hosts, or something in it is wrong.
        VllmrayError: as up_all does.
    """
    from dataclasses import replace

    from vllmray.cluster.phases.base import ClusterRun
    from vllmray.cluster.probe.model import Look, look_here
    from vllmray.config.cluster_settings import load_cluster

    loaded = load_cluster(request.flags, env_file=request.env_file)
    _check_request(request, loaded)
    everyone = members_of(loaded.file, loaded.configs)
    members = [_with_files(member) for member in chosen(everyone, request.only, request.skip)]
    head = next(member for member in everyone if member.role == "head")
    keep_head = head not in members
    if keep_head:  # it is not touched, and tells the workers where it is
        members = [head, *members]
    with board(as_json=request.as_json) as shown, closing_all(members):
        for notice in loaded.notices:
            shown.warning(notice)
        if head.config.no_api_key:
            shown.warning("the endpoint has no authentication (no_api_key): anyone who reaches its port can use it")
        lenient = request.dry_run is not None
        look = look_here(head.config, loaded.layers, shown, lenient=lenient) if request.model_check else Look()
        if request.dry_run:
            _dry_run(request, request.dry_run, members, look, shown)
            return
        record = HostRecord(head.config.cluster)
        run = ClusterRun(
            *(members, shown, replace(options, look=look), StoreKeeper(head.config.cluster)),
            share=loaded.file.share,
            keep_head=keep_head,
            former=_former(record, loaded, head),
            prune=request.prune,
        )
        outcome = _started(run, record)
    _say(outcome, head, as_json=request.as_json)


def _check_request(request: UpRequest, loaded: LoadedCluster) -> None:
    """Raises ConfigError where the command names one host, or the cluster file has none."""
    if request.host or loaded.host:
        raise ConfigError(
            f"{'--host' if request.host else 'VLLMRAY_HOST'} is one host, and without --role all hosts of the cluster "
            "file are started",
            hint="Add --role head or --role worker; or leave it out (--only starts some of the file's hosts).",
        )
    if not loaded.file.hosts:
        raise ConfigError(
            f"no hosts to start: {loaded.file.path} lists none"
            if loaded.file.path.exists()
            else f"no hosts to start: there is no {loaded.file.path}",
            hint="Start one node: --role head or --role worker. Or list the hosts in vllmray.toml (vllmray init), and "
            "`vllmray up` starts all of them.",
        )


def _started(run: ClusterRun, record: HostRecord) -> Outcome:
    """Start the cluster, and note which hosts have it."""
    from vllmray.cluster.up_all import up_all

    cluster = run.head.config.cluster
    record.add({member.name: member.address for member in run.members})
    local = [member for member in run.members if member.address.startswith("unix://")]
    if local:
        docker_mark(cluster).put()
    try:
        outcome = up_all(run)
        record.remove(*(member.name for member in run.former if run.prune))
    finally:
        for member in local:
            if member.connected is not None:
                unmark(member.connected, cluster)
    return outcome


def _dry_run(request: UpRequest, choice: DryRunChoice, members: Sequence[Member], look: Look, report: Reporter) -> None:
    """Print what would be started, host by host, the head's first; no host is asked, and nothing is written."""
    from vllmray.cli.credentials import planned_store, with_secrets
    from vllmray.cli.up_node import as_looked_at, planned_node, say_planned
    from vllmray.cli.up_request import RoleChoice

    head = next(member for member in members if member.role == "head")
    store = planned_store(head.config.cluster)
    token = with_secrets(head.config, head.role, store).ray_token
    for member in sorted(members, key=lambda member: member is not head):
        config = as_looked_at(member.config, look, member.address, report)
        if member is head:
            config = with_secrets(config, head.role, store)
        else:
            head_ip = head.config.node_ip or "HEAD_IP"  # a word for what only the hosts can tell
            config = config.model_copy(update={"ray_token": token, "head_ip": head_ip})
        if not request.as_json:
            print(f"# {member.name}")
        role = RoleChoice(member.role)
        plan = planned_node(config, role, member.address, store)
        say_planned(plan, role, member.address, choice, store.missing, as_json=request.as_json)


def _former(record: HostRecord, loaded: LoadedCluster, head: Member) -> list[Member]:
    """Hosts that nodes were started on, and that are not in the file any more."""
    from vllmray.config.cluster_file import HostEntry

    here = {entry.address for entry in loaded.file.hosts}
    gone = {name: address for name, address in record.read().items() if address not in here}
    return [member_of(HostEntry(name, address, "worker"), head.config) for name, address in gone.items()]


def _with_files(member: Member) -> Member:
    """Files that arguments after -- name, and vllm_args of the file, are the head's host's."""
    member.config = with_named_files(member.config, member.address)
    return member


def _say(outcome: Outcome, head: Member, *, as_json: bool) -> None:
    access = access_to(outcome.config)
    if as_json:
        from vllmray.output.envelope import envelope, up_data

        print(envelope("up", up_data(outcome, head.host.address, access)))
    else:
        from vllmray.output.tables import outcome_text

        print(outcome_text(outcome, access, whole=True))
