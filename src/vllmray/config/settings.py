"""A ClusterConfig from the user's settings, field by field: flags > environment > .env > cluster file > defaults.

The only reader of os.environ. Each field has the variable VLLMRAY_<FIELD>, and the names of the Docker Compose setup
that many users come from work too.
"""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self

import platformdirs
from pydantic import ValidationError

from vllmray.config.cluster_file import (
    ClusterFile,
    full_address,
    read_cluster_file,
    settings_of,
)
from vllmray.config.env_file import EnvFile, read_env_file
from vllmray.config.explain import Problem, config_error, problems_of
from vllmray.config.layers import Layer, one_image, only
from vllmray.config.models import ClusterConfig
from vllmray.config.passing import is_passed, resembles
from vllmray.config.values import UNFIT_VARIABLES, split_variables, why_unfit
from vllmray.config.vllm_config import with_config_file
from vllmray.ray.ports import RayPorts

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
# Read elsewhere or by others, so not a mistyped setting.
OTHER_NAMES = (HOST_VARIABLE, CLUSTER_FILE_VARIABLE, "VLLMRAY_CPU_SLOTS", "VLLMRAY_NODE", "VLLMRAY_TEST_CACHE")

DELAY_NOTICE = "VLLM_STARTUP_DELAY is ignored: the engine starts when all GPUs have joined."


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
    host: str | None = None,
) -> Loaded:
    """Take every field from the highest layer that names it, and validate all; the file of vLLM's --config is read.

    Args:
        flags: values given on the command line by field name; None means not given. `ray_ports` is a dict by port name.
        env_file: a .env file that must exist; None reads ./.env when there is one.
        environ: the environment; None is this process's own.
        typed: how the command line calls a field, where it is not by flag_of.
        host: the address of the host that the command is about, as it was typed.
        fields: the only fields to read; problems with others are ignored.

    Raises:
        ConfigError: lists every problem, one line a field, with where the value came from.
    """
    sources = Sources.read(env_file, environ)
    upper = sources.typed(flags, typed or {})
    layers = one_image(*upper, *_file_layers(sources.file, host or sources.host))
    if fields is not None:
        layers = tuple(only(layer, fields) for layer in layers)
    problems = sources.problems(fields)
    values = settings_of(layers[: len(upper)], layers[len(upper) :])
    if fields is None or "env" in fields:
        values["env"] = sources.passed(values.get("env", ()))
    config = validated(values, layers, problems)
    if config is None or problems:
        raise config_error(problems)
    notices = sources.notices(fields)
    if config.vllm_startup_delay is not None:
        notices += (DELAY_NOTICE,)
    return Loaded(config=config, notices=notices, layers=layers, host=sources.host)


@dataclass(frozen=True, slots=True)
class Sources:
    """Where settings come from besides the command line."""

    environ: Mapping[str, str]
    dotenv: EnvFile
    file: ClusterFile
    file_problems: Sequence[Problem]

    @classmethod
    def read(cls, env_file: Path | None, environ: Mapping[str, str] | None) -> Self:
        """Read them; arguments as for load().

        Raises:
            ConfigError: a file can't be read.
        """
        environ = os.environ if environ is None else environ
        dotenv = _read_dotenv(env_file, environ)
        file, problems = _cluster_file({**dotenv.values, **environ})
        return cls(environ, dotenv, file, problems)

    @property
    def host(self) -> str | None:
        """VLLMRAY_HOST."""
        return self.environ.get(HOST_VARIABLE) or self.dotenv.values.get(HOST_VARIABLE) or None

    def typed(self, flags: Mapping[str, Any], names: Mapping[str, str]) -> tuple[Layer, ...]:
        """The layers above the cluster file, highest first."""
        return (
            _flag_layer(flags, names),
            _variable_layer(self.environ, "the environment"),
            _variable_layer(self.dotenv.values, self.dotenv.title),
        )

    def problems(self, fields: Collection[str] | None) -> list[Problem]:
        """With names and lines, before any value is checked; fields as for load()."""
        found = [*self.dotenv.unreadable]
        if fields is None:
            found += _mistyped(self.environ, "the environment")
            found += [*_mistyped(self.dotenv.values, self.dotenv.title), *self.file_problems]
        return [*found, *_wrong_in(self.dotenv, fields)]

    def notices(self, fields: Collection[str] | None) -> tuple[str, ...]:
        """What the user should know."""
        return (*_empty_notices(self.dotenv, fields), *(_alike(self.environ) if fields is None else ()))

    def passed(self, stated: Any) -> Any:
        """The nodes' variables: those that are stated, and those of a .env file that are for nodes."""
        return _with_passed(stated, self.dotenv)


def validated(values: Mapping[str, Any], layers: Sequence[Layer], problems: list[Problem]) -> ClusterConfig | None:
    """The settings, or None after adding to the problems."""
    try:
        config = ClusterConfig.model_validate(values)
    except ValidationError as error:
        problems += problems_of(error, layers)
        return None
    if config.vllm_args:
        return config.model_copy(update={"vllm_args": with_config_file(config.vllm_args)})
    return config


def _cluster_file(environ: Mapping[str, str]) -> tuple[ClusterFile, list[Problem]]:
    """The file that VLLMRAY_CONFIG names, or ./vllmray.toml; an empty one where there is none."""
    named = environ.get(CLUSTER_FILE_VARIABLE)
    path = Path(named or CLUSTER_FILE)
    if not named and not path.is_file():
        return ClusterFile(path, Layer("", {}, {})), []
    return read_cluster_file(path)


def _file_layers(file: ClusterFile, host: str | None) -> tuple[Layer, ...]:
    """For a command about one host: its own settings if the file has it, the defaults, the cluster's settings."""
    own = next((entry.layers for entry in file.hosts if host and entry.address == full_address(host)), None)
    return (*(own or (file.hosts[0].layers[1:] if file.hosts else ())), file.cluster)


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
