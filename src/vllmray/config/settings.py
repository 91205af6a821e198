"""A ClusterConfig from the user's settings, field by field: flags > environment > .env > cluster file > defaults.

The only reader of os.environ. Each field has the variable VLLMRAY_<FIELD>, and the names of the Docker Compose setup
that many users come from work too.
"""

from __future__ import annotations

import dataclasses
import os
import pwd
import socket
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import platformdirs
from pydantic import ValidationError

from vllmray.config.env_file import EnvFile, read_env_file
from vllmray.config.explain import Problem, config_error, problems_of
from vllmray.config.models import ClusterConfig
from vllmray.config.passing import is_passed, resembles
from vllmray.config.values import LOGINS, UNFIT_VARIABLES, split_variables, why_unfit
from vllmray.config.vllm_config import with_config_file
from vllmray.errors import ConfigError
from vllmray.ray.ports import RayPorts
from vllmray.secure_files import read_trusted

PREFIX = "VLLMRAY_"
PORT_PREFIX = "VLLMRAY_RAY_PORT_"

# The names that the Compose setup uses, vLLM's own for its key, ModelScope's and AWS's for a login.
COMPOSE_NAMES = {
    "hf_token": "HF_TOKEN",
    "modelscope_api_token": "MODELSCOPE_API_TOKEN",
    "aws_access_key_id": "AWS_ACCESS_KEY_ID",
    "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY",
    "aws_session_token": "AWS_SESSION_TOKEN",
    "api_key": "VLLM_API_KEY",
    "model": "MODEL_NAME",
    "model_cache_dir": "MODEL_CACHE_DIR",
    "port": "VLLM_PORT",
    "max_model_len": "MAX_MODEL_LEN",
    "tensor_parallel_size": "TENSOR_PARALLEL_SIZE",
    "pipeline_parallel_size": "PIPELINE_PARALLEL_SIZE",
    "head_ip": "RAY_HEAD_IP",
    "vllm_startup_delay": "VLLM_STARTUP_DELAY",
}
# Lists, of which each line may be an entry.
SEVERAL_LINES = ("VLLMRAY_ENV", "VLLMRAY_VOLUMES", "VLLMRAY_ALLOW_ROUTES", "VLLMRAY_CLUSTER_GPUS")
# Further names of a setting, which those above win over.
OTHER_NAMES_OF = {"hf_token": ("HUGGING_FACE_HUB_TOKEN",)}
CLUSTER_FILE = "vllmray.toml"
CLUSTER_FILE_VARIABLE = "VLLMRAY_CONFIG"
HOST_VARIABLE = "VLLMRAY_HOST"
NOT_IN_THE_CLUSTER_FILE = (*LOGINS, "ray_token", "api_key", "scrape_token")
# Read elsewhere or by others, so not a mistyped setting.
OTHER_NAMES = (HOST_VARIABLE, CLUSTER_FILE_VARIABLE, "VLLMRAY_CPU_SLOTS", "VLLMRAY_NODE", "VLLMRAY_TEST_CACHE")

DELAY_NOTICE = "VLLM_STARTUP_DELAY is ignored: the engine starts when all GPUs have joined."


@dataclass(frozen=True, slots=True)
class Layer:
    """One place that settings come from: its values by field name, and the name each stands under there."""

    title: str
    values: Mapping[str, Any] = dataclasses.field(repr=False)  # there may be secrets among them
    names: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, and one line for each thing the user should know about them."""

    config: ClusterConfig
    notices: tuple[str, ...]
    layers: tuple[Layer, ...] = ()
    """Highest first."""
    host: str | None = None
    """VLLMRAY_HOST: the Docker host when no --host is given."""


def variables_of(field: str) -> tuple[str, ...]:
    """The environment variables of a field, the one that wins first."""
    compose = (COMPOSE_NAMES[field],) if field in COMPOSE_NAMES else ()
    return (f"{PREFIX}{field.upper()}", *compose, *OTHER_NAMES_OF.get(field, ()))


def flag_of(field: str) -> str:
    """The option of a field on the command line; a list's option names one thing and is repeated."""
    names = {"volumes": "--volume", "ray_ports": "--ray-port", "allow_routes": "--allow-route", "vllm_args": "--"}
    return names.get(field, "--" + field.replace("_", "-"))


def load(
    flags: Mapping[str, Any],
    *,
    env_file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    fields: Collection[str] | None = None,
    typed: Mapping[str, str] | None = None,
) -> Loaded:
    """Take every field from the highest layer that names it, then validate all of them at once; the file that vLLM's
    --config names is read.

    Args:
        flags: values given on the command line by field name; None means not given. `ray_ports` is a dict by port name.
        env_file: a .env file that must exist; None reads ./.env when there is one. The cluster file is ./vllmray.toml
            when there is one, or the one that VLLMRAY_CONFIG names.
        environ: the environment; None is this process's own.
        typed: how the command line calls a field, where it is not by flag_of.
        fields: the only fields to read, for a command that needs no others; problems with others are ignored.

    Raises:
        ConfigError: lists every problem, one line a field, with where the value came from.
    """
    environ = os.environ if environ is None else environ
    dotenv = _read_dotenv(env_file, environ)
    file, file_problems = _cluster_file_layer({**dotenv.values, **environ})
    layers = _one_image(
        _flag_layer(flags, typed or {}),
        _variable_layer(environ, "the environment"),
        _variable_layer(dotenv.values, dotenv.title),
        file,
    )
    problems = [*_mistyped(environ, "the environment"), *_mistyped(dotenv.values, dotenv.title), *file_problems]
    if fields is not None:
        problems = []
        layers = tuple(replace(layer, values=_only(layer.values, fields)) for layer in layers)
    problems = [*dotenv.unreadable, *problems, *_wrong_in(dotenv, fields)]
    merged = _merged(layers)
    if fields is None or "env" in fields:
        merged["env"] = _with_passed(merged.get("env", ()), dotenv)
    try:
        config = ClusterConfig.model_validate(merged)
    except ValidationError as error:
        problems += problems_of(error, layers)
    if problems:
        raise config_error(problems)
    if config.vllm_args:
        config = config.model_copy(update={"vllm_args": with_config_file(config.vllm_args)})
    notices = (*_empty_notices(dotenv, fields), *(_alike(environ) if fields is None else ()))
    if config.vllm_startup_delay is not None:
        notices += (DELAY_NOTICE,)
    host = environ.get(HOST_VARIABLE) or dotenv.values.get(HOST_VARIABLE) or None
    return Loaded(config=config, notices=notices, layers=layers, host=host)


def _merged(layers: Sequence[Layer]) -> dict[str, Any]:
    """Each field from the highest layer that has it; of a table, each entry."""
    merged: dict[str, Any] = {}
    for layer in reversed(layers):
        for name, value in layer.values.items():
            below = merged.get(name)
            merged[name] = {**below, **value} if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _read_dotenv(env_file: Path | None, environ: Mapping[str, str]) -> EnvFile:
    path = env_file or Path(".env")
    if env_file is None and not path.is_file():
        return EnvFile(str(path))
    return read_env_file(path, environ)


def _wrong_in(dotenv: EnvFile, fields: Collection[str] | None) -> list[Problem]:
    """Problems with those names in a .env file that are read, or that look like misspelt ones."""
    names, known = _names(fields), _names(None)
    problems = []
    for name, value in (dict.fromkeys(dotenv.wrong, "") | dict(dotenv.values)).items():
        where = f"{name} in {dotenv.title}"
        is_read = name in names or (fields is None and is_passed(name))
        if name in dotenv.wrong and (is_read or resembles(name, names)):
            problems.append(dotenv.wrong[name])
        elif is_read and "\n" in value and name not in SEVERAL_LINES:
            problems.append(Problem(where, "its value has several lines", "close its quote on the first line"))
        elif (
            name in dotenv.values
            and name not in known
            and (meant := resembles(name, names))
            and not (fields is None and _is_ours(name))
        ):
            problems.append(Problem(where, "no such setting", f"did you mean {meant}?"))
        elif fields is None and value and name not in known and not _is_ours(name) and (why := _why_unfit(name)):
            problems.append(Problem(where, "not allowed in the containers", why))
    return problems


def _why_unfit(name: str) -> str | None:
    return why_unfit(name) if is_passed(name) or name in UNFIT_VARIABLES else None


def _is_ours(name: str) -> bool:
    """Whether it has our prefix: then _mistyped reports it if there is no such setting."""
    return name.startswith(PREFIX)


def _empty_notices(dotenv: EnvFile, fields: Collection[str] | None) -> list[str]:
    names = _names(fields)
    return [
        f"{name} in {dotenv.title} is empty: it refers to a variable that is not set"
        for name in dotenv.empty
        if name in names or (fields is None and is_passed(name))
    ]


def _alike(environ: Mapping[str, str]) -> list[str]:
    """Warnings about names in the environment that look like a setting's; they may be meant for another program."""
    names = {name for name in _names(None) if not _is_ours(name)}
    meant = {name: resembles(name, names) for name in environ if name not in names and not _is_ours(name)}
    return [
        f"unknown setting {name} in the environment; did you mean {other}?" for name, other in meant.items() if other
    ]


def _with_passed(stated: Any, dotenv: EnvFile) -> Any:
    """The nodes' variables: those of --env, which take precedence, and those of a .env file that are for nodes."""
    stated = split_variables(stated)
    if not isinstance(stated, list | tuple):
        return stated
    names = {*_names(None), *(str(text).partition("=")[0] for text in stated)}
    passed = (
        name
        for name, value in dotenv.values.items()
        if value and is_passed(name) and name not in names and not why_unfit(name)
    )
    return (*(f"{name}={dotenv.values[name]}" for name in passed), *stated)


def _names(fields: Collection[str] | None) -> set[str]:
    """The variables of these settings; without any, of all settings, and the others that are read here."""
    wanted = ClusterConfig.model_fields if fields is None else fields
    names = {name for field in wanted if field != "build" for name in variables_of(field)}
    return (
        names
        if fields is not None
        else {*names, *OTHER_NAMES, *(PORT_PREFIX + port.upper() for port in RayPorts.model_fields)}
    )


def _cluster_file_layer(environ: Mapping[str, str]) -> tuple[Layer, list[Problem]]:
    """The settings of vllmray.toml, by their own names, and a problem for each unknown one; empty without that file."""
    named = environ.get(CLUSTER_FILE_VARIABLE)
    path = Path(named or CLUSTER_FILE)
    if not named and not path.is_file():
        return Layer(str(path), {}, {}), []
    try:
        values: dict[str, Any] = tomllib.loads(read_trusted(path))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"can't read {path}: {error}", hint="It must be TOML: name = value, a line each.") from error
    image = values.get("image")
    if isinstance(image, dict):
        del values["image"]
        if isinstance(image.get("build"), str):
            image["build"] = str(path.parent / image["build"])
        values["build"] = image
    known = {*ClusterConfig.model_fields} - set(NOT_IN_THE_CLUSTER_FILE)
    strangers = sorted(name for name in values if name not in known)
    problems = [_stranger(name, known, str(path)) for name in strangers]
    kept = {name: value for name, value in values.items() if name in known}
    return Layer(str(path), kept, {name: "image" if name == "build" else name for name in kept}), problems


def _stranger(name: str, known: set[str], path: str) -> Problem:
    if name in NOT_IN_THE_CLUSTER_FILE:
        return Problem(f"{name} in {path}", "a secret in a file that is shared", "put it into the environment or .env")
    return Problem(f"{name} in {path}", "no such setting", _suggestion(name, known))


def _one_image(*layers: Layer) -> tuple[Layer, ...]:
    """Drop image and Dockerfile from all layers but the highest one that names either."""
    kept: list[Layer] = []
    settled = False
    for layer in layers:
        values = {name: value for name, value in layer.values.items() if not (settled and name in ("image", "build"))}
        settled = settled or "image" in values or "build" in values
        kept.append(replace(layer, values=values))
    return tuple(kept)


def _only(values: Mapping[str, Any], fields: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in fields}


def _flag_layer(flags: Mapping[str, Any], typed: Mapping[str, str]) -> Layer:
    values = {name: value for name, value in flags.items() if value not in (None, (), {})}
    return Layer("", values, {name: typed.get(name) or flag_of(name) for name in values})


def _variable_layer(variables: Mapping[str, str], title: str) -> Layer:
    values: dict[str, Any] = {}
    names: dict[str, str] = {}
    for field in ClusterConfig.model_fields:
        if field == "build":
            continue  # a table, which only the cluster file can hold
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
    known = _names(None)
    strangers = sorted(name for name in variables if name.startswith(PREFIX) and name not in known)
    return [Problem(f"{name} in {title}", "no such setting", _suggestion(name, known)) for name in strangers]


def _suggestion(name: str, known: set[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else "remove it"


def own_environment() -> Mapping[str, str]:
    """This process's environment, for code that starts processes."""
    return os.environ


def own_name() -> str:
    """USER@HOST of this process, for others who share a host with it."""
    user = os.geteuid()
    try:
        name = pwd.getpwuid(user).pw_name
    except KeyError:  # a number alone, as in a container that was told one
        name = str(user)
    return f"{name}@{socket.gethostname()}"


def state_folder() -> Path:
    """This user's state folder: what must not be lost (XDG Base Directory Specification, XDG_STATE_HOME)."""
    return platformdirs.user_state_path("vllmray")


def cache_folder() -> Path:
    """This user's cache folder: what can be downloaded or built again (XDG_CACHE_HOME)."""
    return platformdirs.user_cache_path("vllmray")
