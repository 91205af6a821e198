"""vllmray up"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vllmray.cli.options import EnvFileOption, HostOption, JsonOption, advanced, switch, with_settings
from vllmray.cli.up_request import DryRunChoice, RoleChoice, UpRequest
from vllmray.cli.wiring import holder

RoleOption = Annotated[
    RoleChoice | None, typer.Option(help="Start one node, in this role; without it, all hosts of vllmray.toml")
]
OnlyOption = Annotated[
    list[str] | None, typer.Option("--only", metavar="HOST", help="Of the cluster file's hosts, only this one")
]
SkipOption = Annotated[
    list[str] | None, typer.Option("--skip", metavar="HOST", help="Leave out this host of the cluster file")
]
DryRunOption = Annotated[
    DryRunChoice | None,
    typer.Option(
        "--dry-run",
        metavar="[=commands]",
        help="Print a summary of what would be started; with =commands, the command lines that do the same",
    ),
]


@with_settings
def up(  # noqa: PLR0913  # the command line's own breadth
    context: typer.Context,
    *,
    flags: dict[str, Any],
    role: RoleOption = None,
    host: HostOption = None,
    only: OnlyOption = None,
    skip: SkipOption = None,
    prune: Annotated[
        bool, switch("--prune", help="Remove the nodes of hosts that are not in the cluster file any more")
    ] = False,
    env_file: EnvFileOption = None,
    no_wait: Annotated[bool, switch("--no-wait", help="Return when the containers have started")] = False,
    dry_run: DryRunOption = None,
    retain: Annotated[bool, advanced("--retain", help="Keep the containers after a failure")] = False,
    no_derive: Annotated[bool, advanced("--no-derive", help="Do not add Ray to an image without it")] = False,
    no_model_check: Annotated[
        bool, advanced("--no-model-check", help="Do not check the settings against the model's config")
    ] = False,
    recreate: Annotated[bool, switch("--recreate", help="Replace a cluster with another configuration")] = False,
    as_json: JsonOption = False,
) -> None:
    """Start a cluster, or with --role one node, and wait.

    Without --role it starts every host of vllmray.toml (`vllmray init` writes one). With --role it starts this host's
    node: on the head Ray and the vLLM server, on a worker Ray alone. Settings come from options, then environment
    variables, then the .env file, then vllmray.toml, then defaults. Arguments after -- are passed to the vLLM server;
    files that they name are mounted.
    """
    from vllmray.cluster.run import UpOptions
    from vllmray.config.settings import cache_folder

    request = UpRequest(
        flags | {"vllm_args": context.obj.vllm_args},
        env_file=env_file,
        host=host,
        dry_run=dry_run,
        model_check=not no_model_check,
        only=only or (),
        skip=skip or (),
        prune=prune,
        as_json=as_json,
    )
    options = UpOptions(
        wait=not no_wait,
        recreate=recreate,
        retain=retain,
        derive=not no_derive,
        cache=cache_folder() / "images",
        holder=holder("up"),
    )
    if role is None:
        from vllmray.cli.up_all import up_hosts

        up_hosts(request, options)
    else:
        from vllmray.cli.up_node import up_node

        up_node(role, request, options)
