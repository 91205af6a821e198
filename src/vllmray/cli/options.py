"""Command line options made from the settings' own fields, so that no setting is described twice."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from vllmray.config.models import ClusterConfig
from vllmray.config.settings import flag_of, variables_of
from vllmray.config.values import as_typed
from vllmray.errors import ConfigError

# Settings without an option: a secret has no place in argv; the rest of the command line is vLLM's.
WITHOUT_OPTION = ("hf_token", "vllm_args", "vllm_startup_delay")
LISTS = ("volumes", "env", "ray_ports")
SWITCHES = ("allow_tp_across_hosts",)

HostOption = Annotated[
    str | None,
    typer.Option(
        "--host",
        metavar="ADDRESS",
        help="Docker host: unix://…, tcp://…, ssh://…  [VLLMRAY_HOST, else DOCKER_HOST, the Docker context, the local "
        "socket]",
    ),
]
EnvFileOption = Annotated[
    Path | None, typer.Option("--env-file", help="Settings file; ./.env is read when there is one")
]
ClusterOption = Annotated[str | None, typer.Option("--cluster", help="Name of the cluster")]


def option_fields() -> tuple[str, ...]:
    """The settings that have an option."""
    return tuple(name for name in ClusterConfig.model_fields if name not in WITHOUT_OPTION)


def with_settings(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each setting; the function gets them as its argument `flags`."""
    fields = option_fields()

    def command(**arguments: Any) -> None:
        flags = {name: arguments.pop(name) for name in fields}
        if flags["ray_ports"]:
            flags["ray_ports"] = _named_ports(flags["ray_ports"])
        function(flags=flags, **arguments)

    own = inspect.signature(function, eval_str=True).parameters.values()
    parameters = [parameter for parameter in own if parameter.name != "flags"]
    parameters += [_parameter(name) for name in fields]
    command.__name__, command.__doc__ = function.__name__, function.__doc__
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # read by inspect.signature
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _parameter(name: str) -> inspect.Parameter:
    kind: Any = str | None
    if name in LISTS:
        kind = list[str] | None
    elif name in SWITCHES:
        kind = bool | None
    flag = flag_of(name)
    option = typer.Option(flag, help=_help(name), metavar=_metavar(name), rich_help_panel="Settings")
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option])


def _metavar(name: str) -> str | None:
    special = {"volumes": "SOURCE:TARGET[:ro]", "env": "NAME=VALUE", "ray_ports": "NAME=PORT"}
    if name in SWITCHES:
        return None
    return special.get(name, name.rpartition("_")[2].upper())


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
