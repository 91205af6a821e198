"""From what the user wrote to a ClusterConfig: flags > environment > .env file > defaults, field by field.

The only reader of os.environ. Each field has the variable VLLMRAY_<FIELD>, and the names of the Docker Compose setup
that many users come from work too.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from vllmray.config.explain import Problem, config_error, problems_of
from vllmray.config.models import ClusterConfig
from vllmray.errors import ConfigError
from vllmray.ray.ports import RayPorts

PREFIX = "VLLMRAY_"
PORT_PREFIX = "VLLMRAY_RAY_PORT_"

# The names that the Compose setup uses.
COMPOSE_NAMES = {
    "hf_token": "HF_TOKEN",
    "model": "MODEL_NAME",
    "model_cache_dir": "MODEL_CACHE_DIR",
    "port": "VLLM_PORT",
    "max_model_len": "MAX_MODEL_LEN",
    "tensor_parallel_size": "TENSOR_PARALLEL_SIZE",
    "pipeline_parallel_size": "PIPELINE_PARALLEL_SIZE",
    "head_ip": "RAY_HEAD_IP",
    "vllm_startup_delay": "VLLM_STARTUP_DELAY",
}
# Read elsewhere or by others, so not a mistyped setting.
OTHER_NAMES = ("VLLMRAY_HOST", "VLLMRAY_CPU_SLOTS", "VLLMRAY_TEST_CACHE")

DELAY_NOTICE = "VLLM_STARTUP_DELAY is no longer needed: the engine starts when the GPUs are there."


@dataclass(frozen=True, slots=True)
class Layer:
    """One place that settings come from: its values by field name, and the name each stands under there."""

    title: str
    values: Mapping[str, Any]
    names: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, and one line for each thing the user should know about them."""

    config: ClusterConfig
    notices: tuple[str, ...]


class _LayeredConfig(ClusterConfig, BaseSettings):  # type: ignore[misc]  # the two kinds of model_config
    """ClusterConfig filled by pydantic-settings from the layers that load() hands it, highest first."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        layers = getattr(init_settings, "init_kwargs", {}).get("layers", ())
        return tuple(_LayerSource(settings_cls, layer) for layer in layers)


class _LayerSource(PydanticBaseSettingsSource):
    """A Layer as pydantic-settings asks for it."""

    def __init__(self, settings_cls: type[BaseSettings], layer: Layer) -> None:
        super().__init__(settings_cls)
        self._layer = layer

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self._layer.values.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return dict(self._layer.values)


def variables_of(field: str) -> tuple[str, ...]:
    """The environment variables of a field, the one that wins first."""
    ours = f"{PREFIX}{field.upper()}"
    return (ours, COMPOSE_NAMES[field]) if field in COMPOSE_NAMES else (ours,)


def flag_of(field: str) -> str:
    """The option of a field on the command line; a list's option names one thing and is repeated."""
    names = {"volumes": "--volume", "ray_ports": "--ray-port", "vllm_args": "--"}
    return names.get(field, "--" + field.replace("_", "-"))


def load(
    flags: Mapping[str, Any],
    *,
    env_file: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """Settle every field from the highest layer that names it, then check all of them at once.

    Args:
        flags: values given on the command line by field name; None means not given. `ray_ports` is a dict by port name.
        env_file: a .env file that must exist; None reads ./.env when there is one.
        environ: the environment; None is this process's own.

    Raises:
        ConfigError: lists every problem, one line a field, with where the value came from.
    """
    environ = os.environ if environ is None else environ
    dotenv, dotenv_title = _read_dotenv(env_file)
    layers = (_flag_layer(flags), _variable_layer(environ, "the environment"), _variable_layer(dotenv, dotenv_title))
    problems = [*_mistyped(environ, "the environment"), *_mistyped(dotenv, dotenv_title)]
    try:
        config = _LayeredConfig(layers=layers)  # type: ignore[call-arg]  # settings_customise_sources takes it
    except ValidationError as error:
        problems += problems_of(error, layers)
    if problems:
        raise config_error(problems)
    # The plain model, so that what goes on from here has no tie to where it came from.
    plain = ClusterConfig.model_construct(**{name: getattr(config, name) for name in ClusterConfig.model_fields})
    notices = (DELAY_NOTICE,) if plain.vllm_startup_delay is not None else ()
    return Loaded(config=plain, notices=notices)


def _read_dotenv(env_file: Path | None) -> tuple[dict[str, str], str]:
    path = env_file or Path(".env")
    if env_file is None and not path.is_file():
        return {}, str(path)
    try:
        values = dotenv_values(stream=io.StringIO(path.read_text(encoding="utf-8")), interpolate=False)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"can't read {path}: {error}", hint="Check the path given with --env-file.") from error
    return {name: value for name, value in values.items() if value is not None}, str(path)


def _flag_layer(flags: Mapping[str, Any]) -> Layer:
    values = {name: value for name, value in flags.items() if value not in (None, (), {})}
    return Layer("", values, {name: flag_of(name) for name in values})


def _variable_layer(variables: Mapping[str, str], title: str) -> Layer:
    values: dict[str, Any] = {}
    names: dict[str, str] = {}
    for field in ClusterConfig.model_fields:
        name = next((name for name in variables_of(field) if variables.get(name)), None)
        if name is not None:
            values[field], names[field] = variables[name], name
    ports = {
        port: variables[PORT_PREFIX + port.upper()]
        for port in RayPorts.model_fields
        if variables.get(PORT_PREFIX + port.upper())
    }
    if ports:
        values["ray_ports"], names["ray_ports"] = ports, PORT_PREFIX + "…"
    return Layer(title, values, names)


def _mistyped(variables: Mapping[str, str], title: str) -> list[Problem]:
    known = {
        *(name for field in ClusterConfig.model_fields for name in variables_of(field)),
        *(PORT_PREFIX + port.upper() for port in RayPorts.model_fields),
        *OTHER_NAMES,
    }
    strangers = sorted(name for name in variables if name.startswith(PREFIX) and name not in known)
    return [Problem(f"{name} in {title}", "no such setting", _suggestion(name, known)) for name in strangers]


def _suggestion(name: str, known: set[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else "remove it"


def docker_host_variable() -> str | None:
    """VLLMRAY_HOST: the host when no --host is given."""
    return os.environ.get("VLLMRAY_HOST") or None
