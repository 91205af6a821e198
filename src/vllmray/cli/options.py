"""Command line options: those made from the settings' own fields, so that no setting is described twice, and those
that several commands share.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from vllmray.cli.completion import recorded_clusters
from vllmray.config.cluster_file import NOT_IN_THE_CLUSTER_FILE
from vllmray.config.models import ClusterConfig
from vllmray.config.settings import flag_of, variables_of
from vllmray.config.values import as_typed
from vllmray.errors import ConfigError

# Settings without an option: a secret has no place in argv; the rest of the command line is vLLM's.
WITHOUT_OPTION = (
    *NOT_IN_THE_CLUSTER_FILE,
    *("vllm_args", "vllm_startup_delay", "network", "build"),
)
LISTS = ("volumes", "env", "ray_ports", "allow_routes")
SWITCHES = tuple(name for name, field in ClusterConfig.model_fields.items() if field.annotation is bool)
SHORT = {"model": "-m", "tensor_parallel_size": "-tp", "pipeline_parallel_size": "-pp"}
METAVARS = {"volumes": "SRC:DST[:rw]", "env": "NAME=VALUE", "ray_ports": "NAME=PORT", "allow_routes": "PATH"}

ADVANCED = "Advanced"
"""The panel that --help leaves out, and --help-all shows."""
PANELS = {
    "Model": ("model", "max_model_len", "tensor_parallel_size", "pipeline_parallel_size", "model_cache_dir"),
    "Placement": (
        *("cluster", "runtime", "image", "python", "accelerator", "gpus"),
        *("cluster_gpus", "allow_tp_across_hosts"),
    ),
    "Network": ("head_ip", "node_ip", "network_interface", "port"),
    "Security": ("token_file", "api_key_file", "no_api_key", "tls", "ssl_certfile", "ssl_keyfile", "allow_routes"),
    ADVANCED: (
        *("volumes", "env", "user", "writable_root", "shm_size", "object_store_memory"),
        *("rdma", "memlock", "nofile", "ray_ports", "ray_metrics"),
        *("join_timeout", "engine_timeout", "stall_timeout", "insecure_docker_tcp"),
    ),
}
"""The settings with an option, by the panel of `up --help` that shows them."""


def switch(*names: str, help: str) -> Any:  # noqa: A002  # typer's own name
    """An option without a value; the help shows no type for it."""
    return typer.Option(*names, help=help, metavar="", show_default=False)


def advanced(name: str, *, help: str) -> Any:  # noqa: A002  # as above
    """A switch that --help leaves out, and --help-all shows."""
    return typer.Option(name, help=help, metavar="", show_default=False, rich_help_panel=ADVANCED, hidden=True)


HostOption = Annotated[
    str | None,
    typer.Option(
        "--host",
        metavar="ADDRESS",
        help="Docker host: unix://PATH, ssh://USER@HOST or tcp://HOST:PORT; without it, VLLMRAY_HOST, DOCKER_HOST, "
        "the Docker context or the local socket",
    ),
]
RuntimeOption = Annotated[
    str | None,
    typer.Option("--runtime", metavar="RUNTIME", help="docker or native; without it, the one that has the cluster"),
]
EnvFileOption = Annotated[
    Path | None, typer.Option("--env-file", metavar="FILE", help="File with settings; without it, ./.env if it exists")
]
InsecureOption = Annotated[
    bool | None, switch("--insecure-docker-tcp", help="Connect to a Docker daemon over TCP without TLS")
]
ClusterOption = Annotated[
    str | None,
    typer.Option("--cluster", metavar="NAME", help="Name of the cluster", autocompletion=recorded_clusters),
]
JsonOption = Annotated[bool, switch("--json", help="Print the result as one line of JSON")]
DebugOption = Annotated[bool, switch("--debug", help="Show a traceback with each error")]


def option_fields() -> tuple[str, ...]:
    """The settings that have an option."""
    return tuple(name for name in ClusterConfig.model_fields if name not in WITHOUT_OPTION)


def with_settings(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each setting; the function gets them as its argument `flags`."""
    fields = option_fields()

    def command(**arguments: Any) -> None:
        del arguments["help_all"]
        flags = {name: arguments.pop(name) for name in fields}
        if flags["ray_ports"]:
            flags["ray_ports"] = _named_ports(flags["ray_ports"])
        function(flags=flags, **arguments)

    settings = [_parameter(name, panel) for panel, names in PANELS.items() for name in names]
    return shown_as(function, command, [*_own(function, "flags"), *settings, _help_all()])


class RoleChoice(StrEnum):
    """One of a cluster's containers."""

    head = "head"
    worker = "worker"
    engine = "engine"


@dataclass(frozen=True, slots=True)
class Place:
    """Which cluster a command is about, and where it is: the options that all such commands share."""

    host: str | None
    cluster: str | None
    runtime: str | None
    env_file: Path | None
    insecure_docker_tcp: bool | None


def with_place(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a Place; the function gets it as its argument `place`."""
    options = {
        "host": HostOption,
        "cluster": ClusterOption,
        "runtime": RuntimeOption,
        "env_file": EnvFileOption,
        "insecure_docker_tcp": InsecureOption,
    }

    def command(**arguments: Any) -> None:
        place = Place(**{name: arguments.pop(name) for name in options})
        function(place=place, **arguments)

    kind = inspect.Parameter.KEYWORD_ONLY
    extra = [inspect.Parameter(name, kind, default=None, annotation=option) for name, option in options.items()]
    return shown_as(function, command, [*_own(function, "place"), *extra])


def _own(function: Callable[..., None], replaced: str) -> list[inspect.Parameter]:
    """A function's parameters except that one."""
    own = inspect.signature(function, eval_str=True).parameters.values()
    return [parameter for parameter in own if parameter.name != replaced]


def shown_as(
    function: Callable[..., None], command: Callable[..., None], parameters: Sequence[inspect.Parameter]
) -> Callable[..., None]:
    """The command with the function's name and docstring, and with those parameters, as Typer reads them."""
    command.__name__, command.__doc__ = function.__name__, function.__doc__
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # read by inspect.signature
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _parameter(name: str, panel: str) -> inspect.Parameter:
    kind: Any = str | None
    if name in LISTS:
        kind = list[str] | None
    elif name in SWITCHES:
        kind = bool | None
    option = typer.Option(
        *(flag_of(name), SHORT.get(name)) if name in SHORT else (flag_of(name),),
        help=_help(name),
        metavar=_metavar(name),
        rich_help_panel=panel,
        hidden=panel == ADVANCED,
        autocompletion=recorded_clusters if name == "cluster" else None,
    )
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option])


def _help_all() -> inspect.Parameter:
    """--help-all: the help with the options that --help leaves out."""

    def show(context: typer.Context, asked: bool) -> None:
        if not asked or context.resilient_parsing:
            return
        for parameter in context.command.params:
            if getattr(parameter, "rich_help_panel", None) == ADVANCED:
                parameter.hidden = False  # type: ignore[attr-defined]  # of an option
        print(context.get_help())
        raise typer.Exit

    option = typer.Option(
        "--help-all",
        help=f"Show this message with the {ADVANCED.lower()} options",
        metavar="",
        callback=show,
        is_eager=True,
    )
    return inspect.Parameter(
        "help_all", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, option]
    )


def _metavar(name: str) -> str:
    if name in SWITCHES:
        return ""
    return METAVARS.get(name, name.rpartition("_")[2].upper())


def _help(name: str) -> str:
    if name == "ray_ports":
        ports = ClusterConfig.model_fields["ray_ports"].get_default(call_default_factory=True)
        listed = ", ".join(f"{port}={number}" for port, number in ports)
        return f"One of Ray's ports: {listed}  [VLLMRAY_RAY_PORT_<NAME>]"
    field = ClusterConfig.model_fields[name]
    default = shown_default(name)
    marks = f"  [{', '.join(variables_of(name))}]" + (f" (default: {default})" if default else "")
    return f"{field.description}{marks}"


def shown_default(name: str) -> str:
    """A setting's default as a person would type it; empty when there is none."""
    value = ClusterConfig.model_fields[name].get_default(call_default_factory=True)
    return "" if value is None or value == () else as_typed(name, value)


def _named_ports(given: list[str]) -> dict[str, str]:
    ports = {}
    for text in given:
        name, separator, port = text.partition("=")
        if not separator:
            raise ConfigError(f"--ray-port {text} is not NAME=PORT", hint="For example: --ray-port gcs=6380")
        ports[name.replace("-", "_")] = port
    return ports


def address_of(host: str) -> str:
    """The address of a host; a bare name or IP address means SSH."""
    return host if "://" in host else f"ssh://{host}"
