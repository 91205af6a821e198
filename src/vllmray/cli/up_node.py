"""vllmray up --role: one node, on one host."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vllmray.cli.credentials import (
    access_to,
    caller,
    caller_on,
    has_address,
    keep_for,
    logins_of,
    places_for,
    planned_store,
    secrets_for,
    with_secrets,
    worker_secrets,
)
from vllmray.cli.mark import marked
from vllmray.cli.up_request import DryRunChoice, RoleChoice, UpRequest
from vllmray.cli.wiring import on_runtime, open_target, reporter, runtime_to_be, say_runtime, settings
from vllmray.errors import ConfigError
from vllmray.secrets.store import RAY_TOKEN, TLS_CERTIFICATE, TO_COME

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from vllmray.cluster.dry_run import Preview
    from vllmray.cluster.probe.model import Look
    from vllmray.cluster.run import Outcome, UpOptions
    from vllmray.cluster.spec.contents import Secrets
    from vllmray.config.models import ClusterConfig
    from vllmray.reporter import Reporter
    from vllmray.secrets.store import PlannedStore


def up_node(role: RoleChoice, request: UpRequest, options: UpOptions) -> None:
    """Start the node of that role, and print what was started."""
    from vllmray.cluster.probe.model import Look, look_here

    report = reporter()
    loaded = settings(request.flags, request.env_file, report, host=request.host)
    config, host = loaded.config.typed_on(request.host), request.host or loaded.host
    dry_run = request.dry_run
    is_checked = role is RoleChoice.head and request.model_check
    look = look_here(loaded.config, loaded.layers, report, lenient=bool(dry_run)) if is_checked else Look()
    planned = planned_store(config.cluster) if dry_run else None
    config = with_secrets(_with_addresses(config, role), role.value, planned)
    if config.no_api_key and role is RoleChoice.head:
        report.warning("the endpoint has no authentication (--no-api-key): anyone who reaches its port can use it")
    if planned and dry_run:
        plan = planned_node(as_looked_at(config, look, host, report), role, host, planned)
        say_planned(plan, role, host, dry_run, planned.missing, as_json=request.as_json)
        return
    options = replace(
        options,
        look=look,
        secrets=secrets_for if role is RoleChoice.head else worker_secrets,
        keep=keep_for(config.cluster),
    )
    outcome, address = _done(config, role, host, options, report)
    _say_outcome(outcome, address, role, as_json=request.as_json)


def _say_outcome(outcome: Outcome, address: str, role: RoleChoice, *, as_json: bool) -> None:
    access = access_to(outcome.config) if role is RoleChoice.head else None
    if as_json:
        from vllmray.output.envelope import envelope, up_data

        print(envelope("up", up_data(outcome, address, access)))
    else:
        from vllmray.output.tables import outcome_text

        print(outcome_text(outcome, access))


def as_looked_at(config: ClusterConfig, look: Look, host: str | None, report: Reporter) -> ClusterConfig:
    """The settings with sizes and runtime, as far as they are known without a check of the host."""
    from vllmray.cluster.spec.mounts import check_links
    from vllmray.cluster.spec.sizes import resolve_sizes

    config = resolve_sizes(look.model, config, (), report)
    config = on_runtime(config, runtime_to_be(host, config.runtime, config.cluster))
    check_links(config, look.outside)
    return config


def _with_addresses(config: ClusterConfig, role: RoleChoice) -> ClusterConfig:
    """On the head, node_ip is head_ip by default; a worker needs head_ip."""
    if role is RoleChoice.worker and config.head_ip is None:
        raise ConfigError("a worker needs the head's address", hint="Give it with --head-ip, or RAY_HEAD_IP in .env.")
    if role is RoleChoice.head and config.node_ip is None:
        return config.model_copy(update={"node_ip": config.head_ip})
    return config


def _done(
    config: ClusterConfig, role: RoleChoice, host: str | None, options: UpOptions, report: Reporter
) -> tuple[Outcome, str]:
    """Start the node; returns what was created, and the host's address."""
    from vllmray.cli.named_files import with_named_files
    from vllmray.cluster.up import up_head, up_worker

    cluster, insecure = config.cluster, config.insecure_docker_tcp
    with open_target(host, config.runtime, having=cluster, starts=True, insecure_tcp=insecure) as target:
        say_runtime(target, report)
        act = up_head if role is RoleChoice.head else up_worker
        options = replace(options, caller=caller_on(target))
        with marked(target.host, target.runtime, cluster):
            config = with_named_files(on_runtime(config, target.runtime), target.host.address)
            outcome = act(target.host, config, options, report)
    return outcome, target.host.address


def say_planned(
    plan: Preview, role: RoleChoice, host: str | None, dry_run: DryRunChoice, missing: Collection[str], *, as_json: bool
) -> None:
    """Print what would be started on one host."""
    from vllmray.output.dry_run import summary, summary_text

    if dry_run is DryRunChoice.commands and not as_json:
        print(plan.commands)
        return
    lines = summary(plan, role.value, host, missing)
    if not as_json:
        print(summary_text(lines))
        return
    from vllmray.output.envelope import envelope
    from vllmray.output.results import Plan

    print(envelope("up --dry-run", Plan(plan.config.cluster, role.value, lines, plan.commands.splitlines())))


def planned_node(config: ClusterConfig, role: RoleChoice, host: str | None, store: PlannedStore) -> Preview:
    """What would be started, of settings with a runtime; nothing is written."""
    from vllmray.cli.named_files import with_named_files
    from vllmray.cluster.dry_run import preview
    from vllmray.cluster.spec.secret_files import filled
    from vllmray.hosts.docker.address import address_to_be

    host = host or (address_to_be() if config.runtime == "docker" else None)
    if config.runtime != "native" and (host is None or host.startswith("unix://")):
        config = config.model_copy(update={"user": config.user or caller()})
    config = with_named_files(config, host or "unix://")

    def secrets(found: ClusterConfig) -> tuple[Secrets, dict[str, Path], list[str]]:
        kept, places = _kept(found, role, store)
        return kept, places, _by_hand(store, str(found.node_ip), marked=config.runtime != "native")

    plan = preview(config, role.value, host, secrets)
    return replace(plan, commands=filled(plan.commands))


def _by_hand(store: PlannedStore, address: str, *, marked: bool) -> list[str]:
    """The shell lines that create missing secrets; marked as in cluster/spec/secret_files.py."""
    from vllmray.cluster.spec.secret_files import lines
    from vllmray.secrets.certificate import names_for

    names, addresses = names_for(address)
    certified = [*(f"DNS:{name}" for name in names), *(f"IP:{each}" for each in dict.fromkeys(addresses))]
    return lines(store.path(RAY_TOKEN).parent, store.missing, certified, marked=marked)


def _kept(config: ClusterConfig, role: RoleChoice, store: PlannedStore) -> tuple[Secrets, dict[str, Path]]:
    """The secrets of a plan, and the files on this machine that have them, or will have them."""
    from pydantic import SecretStr

    from vllmray.cluster.spec.contents import Secrets

    if role is RoleChoice.worker:
        return worker_secrets(config), places_for(config, role.value, store)
    secrets = replace(Secrets.of(config), logins=logins_of(config))
    if has_address(config):
        secrets = secrets_for(config, store)
    # A certificate is for an address: until that is known, or it is generated, a placeholder stands for it.
    if config.serves_https and (not has_address(config) or TLS_CERTIFICATE in store.missing):
        secrets = replace(secrets, certificate=TO_COME, certificate_key=SecretStr(TO_COME))
    return secrets, places_for(config, role.value, store)
