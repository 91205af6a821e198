"""vllmray up"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from vllmray.cli.options import EnvFileOption, HostOption, with_settings
from vllmray.cli.wiring import Invocation, open_host, reporter, settings
from vllmray.errors import ConfigError


class RoleChoice(StrEnum):
    """--role"""

    head = "head"
    worker = "worker"


@with_settings
def up(  # noqa: PLR0913  # the command line's own breadth
    context: typer.Context,
    *,
    flags: dict[str, Any],
    role: Annotated[RoleChoice, typer.Option(help="What this host is to be")],
    host: HostOption = None,
    env_file: EnvFileOption = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Return once the containers run")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the docker run lines and start nothing")] = False,
    retain: Annotated[bool, typer.Option("--retain", help="Keep the containers after a failure")] = False,
    recreate: Annotated[bool, typer.Option("--recreate", help="Replace a cluster of another configuration")] = False,
) -> None:
    """Start this host's part of a cluster, and wait until it works.

    Settings come from options, then environment variables, then the .env file, then defaults. Everything after -- goes
    to the vLLM server unchanged.
    """
    from vllmray.cluster.up import Options, up_head, up_worker
    from vllmray.output.tables import outcome_text

    invocation: Invocation = context.obj
    report = reporter()
    config = settings(flags | {"vllm_args": invocation.vllm_args}, env_file, report)
    if role is RoleChoice.worker and config.head_ip is None:
        raise ConfigError("a worker needs the head's address", hint="Give it with --head-ip, or RAY_HEAD_IP in .env.")
    if role is RoleChoice.head and config.node_ip is None:
        config = config.model_copy(update={"node_ip": config.head_ip})
    if dry_run:
        from vllmray.cluster.preview import preview

        print(preview(config, role.value, host))
        return
    options = Options(wait=not no_wait, recreate=recreate, retain=retain)
    with open_host(host) as target:
        act = up_head if role is RoleChoice.head else up_worker
        print(outcome_text(act(target, config, options, report)))
