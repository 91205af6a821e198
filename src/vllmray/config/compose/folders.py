"""The folders of a Compose setup, as one draft of a cluster file; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml  # type: ignore[import-untyped]  # it has no types of its own

from vllmray.config.compose.service import Service, read_service
from vllmray.config.env_file import parse_env_file
from vllmray.config.explain import Problem, config_error
from vllmray.config.interpolation import NotSetError, interpolated
from vllmray.config.passing import is_passed
from vllmray.config.render import Draft, DraftHost
from vllmray.config.values import LOGINS, check_ipv4, why_unfit
from vllmray.errors import ConfigError

ENV = ".env"
FILES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
"""What Compose looks for, first to last (Docker's documentation, "How Compose works")."""
OF_HOSTS = ("gpus", "node_ip", "model_cache", "volumes", "shm_size")
VARIABLES = {
    "MODEL_NAME": "model",
    "MODEL_CACHE_DIR": "model_cache",
    "VLLM_PORT": "port",
    "MAX_MODEL_LEN": "max_model_len",
    "TENSOR_PARALLEL_SIZE": "tensor_parallel_size",
    "PIPELINE_PARALLEL_SIZE": "pipeline_parallel_size",
}
"""Of a .env file of that setup, and their names in the cluster file."""
OF_ITS_OWN = {
    "VLLM_STARTUP_DELAY": "not needed, the engine waits for its GPUs",
}
NUMBERS = ("port", "max_model_len", "tensor_parallel_size", "pipeline_parallel_size")


@dataclass(frozen=True, slots=True)
class Folder:
    """A host's folder: the texts of its files, by name."""

    name: str
    files: Mapping[str, str]


@dataclass(slots=True)
class _Host:
    name: str
    role: str = "worker"
    settings: dict[str, Any] = field(default_factory=dict)
    vllm_args: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)


def draft_of(folders: Sequence[Folder], addresses: Sequence[str]) -> tuple[Draft, list[str]]:
    """The draft, and a line for each thing that is not taken over, or has another place.

    Args:
        addresses: of the hosts, in the order of the folders; where there is none, the address in its files.

    Raises:
        ConfigError: a file can't be read, or the folders contradict each other: every problem.
    """
    hosts = [_host(folder) for folder in folders]
    problems = [*_roles(hosts), *_contradictions(hosts), *_addresses(hosts)]
    if len(addresses) > len(folders):
        problems.append(Problem("--host", f"{len(addresses)} for {len(folders)} folders", "give one a folder"))
    head = next((host for host in hosts if host.role == "head"), hosts[0])
    head_ip = head.settings.get("node_ip") or next(
        (h.settings.get("head_ip") for h in hosts if "head_ip" in h.settings), None
    )
    if head_ip:
        head.settings["node_ip"] = head_ip
    drafts, common = [], _common(hosts)
    ordered = [head, *(host for host in hosts if host is not head)]
    given = {host.name: address for host, address in zip(hosts, addresses, strict=False)}
    for host in ordered:
        address = given.get(host.name) or host.settings.get("node_ip")
        if not address:
            problems.append(
                Problem(host.name, "the host's address is in none of its files", "give --host, one a folder")
            )
        own = {name: host.settings[name] for name in OF_HOSTS if name in host.settings}
        if differs := {name: text for name, text in host.env.items() if name not in common}:
            own["env"] = differs
        drafts.append(DraftHost(str(address), host.role, own, (f"from {host.name}",)))
    if problems:
        raise ConfigError(
            "these folders make no cluster file; nothing was written",
            details="\n".join(map(str, problems)),
            hint="Correct the folders, or write vllmray.toml yourself (docs/cluster-file.md).",
        )
    return _draft(head, hosts, drafts, common), [
        f"{host.name}: {line}" for host in hosts for line in dict.fromkeys(host.notices)
    ]


def _draft(head: _Host, hosts: Sequence[_Host], drafts: Sequence[DraftHost], common: Mapping[str, str]) -> Draft:
    cluster: dict[str, Any] = {"name": "vllmray"}
    for host in (*hosts, head):
        cluster |= {name: text for name, text in host.settings.items() if name not in (*OF_HOSTS, "head_ip")}
    cluster = {name: int(text) if name in NUMBERS and str(text).isdigit() else text for name, text in cluster.items()}
    if head.vllm_args:
        cluster["vllm_args"] = head.vllm_args
    return Draft(
        cluster,
        drafts,
        defaults={"env": common} if common else {},
        comments=("Made by `vllmray import`. `vllmray up` starts the cluster; secrets go into .env.",),
    )


def _common(hosts: Sequence[_Host]) -> dict[str, str]:
    """Variables that all hosts have alike; the others stay with their hosts."""
    first = hosts[0].env
    return {name: text for name, text in first.items() if all(host.env.get(name) == text for host in hosts)}


def _host(folder: Folder) -> _Host:
    found = _Host(folder.name)
    env = parse_env_file(folder.files.get(ENV, ""), f"{folder.name}/{ENV}", {})
    problems = [*env.unreadable, *env.wrong.values()]
    if problems:
        raise config_error(problems)
    services = _services(folder, env.values)
    for service in services:
        _take(service, found)
    for name, text in env.values.items():
        _variable(name, text, found)
    return found


def _services(folder: Folder, variables: Mapping[str, str]) -> list[Service]:
    """Those that run Ray or vLLM; all others are named."""
    name = next((name for name in FILES if name in folder.files), None)
    if name is None:
        return []
    title = f"{folder.name}/{name}"
    try:
        document = yaml.safe_load(folder.files[name])
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"can't read {title}: {' '.join(str(error).split())}", hint="It must be YAML.") from error
    raw = document.get("services") if isinstance(document, dict) else None
    if not isinstance(raw, dict) or not raw:
        raise ConfigError(f"{title} has no services", hint="Name the folder of a Docker Compose setup.")
    services = []
    for each, service in raw.items():
        if not isinstance(service, dict):
            raise ConfigError(f"{title}: service {each} is not a table", hint="Check it with: docker compose config")
        services.append(read_service(str(each), _substituted(service, variables, title), _env_files(service, folder)))
    chosen = [service for service in services if service.command.role or service.command.serves]
    if not chosen:
        raise ConfigError(
            f"{title}: no service starts Ray or vLLM",
            hint="Where it is in another file (extends, include), merge them first: docker compose config",
        )
    chosen[0].notices += [
        f"service {service.name}: it runs neither Ray nor vLLM, and is not taken over"
        for service in services
        if service not in chosen
    ]
    chosen[0].notices += [
        f"{key} in {name}: there is nothing like it in a cluster file"
        for key in document
        if key not in ("services", "version", "name", "networks", "volumes") and not str(key).startswith("x-")
    ]
    return chosen


def _env_files(service: Mapping[str, Any], folder: Folder) -> dict[str, str]:
    """Variables of env_file entries that are in the folder; .env too is one where it is named."""
    named = service.get("env_file")
    paths = [named] if isinstance(named, str) else named if isinstance(named, list) else []
    found: dict[str, str] = {}
    for each in paths:
        path = str(each.get("path", "") if isinstance(each, dict) else each).removeprefix("./")
        if path != ENV and path in folder.files:
            found |= parse_env_file(folder.files[path], f"{folder.name}/{path}", {}).values
        elif path != ENV:
            raise ConfigError(
                f"{folder.name}: env_file {path} is not in that folder", hint="Copy it there, or remove the entry."
            )
    return found


class _Lenient(dict[str, str]):
    """Variables, of which those that are not set are empty: Compose warns of them and goes on."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> str:
        return ""

    def get(self, name: str, default: Any = None) -> Any:  # noqa: ARG002  # the mapping's own
        return self[name]


def _substituted(value: Any, variables: Mapping[str, str], title: str) -> Any:
    if isinstance(value, str):
        try:
            return interpolated(value, variables)
        except NotSetError:
            return interpolated(value, _Lenient(variables))
        except ValueError as error:
            raise ConfigError(f"{title}: {error}", hint="Correct it, or set the variable in .env.") from None
    if isinstance(value, dict):
        return {name: _substituted(each, variables, title) for name, each in value.items()}
    return [_substituted(each, variables, title) for each in value] if isinstance(value, list) else value


def _take(service: Service, found: _Host) -> None:
    command = service.command
    if command.role == "head" or command.serves:
        found.role = "head"
    found.settings |= service.settings | command.settings
    found.vllm_args += command.vllm_args
    found.env |= service.env
    found.notices += service.notices


def _variable(name: str, text: str, found: _Host) -> None:
    if not text:
        return
    if name in VARIABLES:
        key = VARIABLES[name]
        if key == "model_cache" and not text.startswith("/"):
            found.notices.append(f"{name}: a path of its own folder: give model_cache, an absolute path of the host")
        else:
            found.settings.setdefault(key, text)
    elif name == "RAY_HEAD_IP":
        found.settings.setdefault("head_ip", text)
    elif name in OF_ITS_OWN:
        found.notices.append(f"{name}: {OF_ITS_OWN[name]}")
    elif name.lower() in LOGINS or why_unfit(name):
        found.notices.append(f"{name}: a secret, or set by vllmray: keep it in .env beside vllmray.toml")
    elif is_passed(name):
        found.env.setdefault(name, text)
    else:
        found.notices.append(f"{name} in {ENV}: not read by vllmray")


def _roles(hosts: Sequence[_Host]) -> list[Problem]:
    heads = [host.name for host in hosts if host.role == "head"]
    if len(heads) == 1:
        return []
    what = f"{len(heads)} folders start a head ({', '.join(heads)})" if heads else "no folder starts a head"
    return [Problem("folders", what, "a cluster has one: `ray start --head`, or `vllm serve`")]


def _addresses(hosts: Sequence[_Host]) -> list[Problem]:
    problems = []
    for host in hosts:
        for name in ("node_ip", "head_ip"):
            try:
                check_ipv4(str(host.settings.get(name) or "10.0.0.1"))
            except ValueError as error:
                problems.append(Problem(f"{name} of {host.name}", str(error), "correct it in its files"))
    return problems


def _contradictions(hosts: Sequence[_Host]) -> list[Problem]:
    names = ("port", "model", "image", "tensor_parallel_size", "pipeline_parallel_size", "max_model_len", "head_ip")
    problems = []
    for name in names:
        values = {host.name: str(host.settings[name]) for host in hosts if name in host.settings}
        if len(set(values.values())) > 1:
            told = ", ".join(f"{host} has {value}" for host, value in values.items())
            problems.append(Problem(name, f"differs between the folders ({told})", "make it the same in all"))
    return problems
