"""The settings of every host of a cluster file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vllmray.config.cluster_file import ClusterFile, HostEntry, settings_of
from vllmray.config.explain import Problem, config_error, origin
from vllmray.config.layers import Layer, one_image
from vllmray.config.models import ClusterConfig
from vllmray.config.settings import Sources, validated

REMOTE_MODELS = "/var/lib/vllmray/models"
"""The model cache of another host where none is named."""
_OWN_PLACE = {
    "node_ip": "give node_ip under its [[hosts]]",
    "head_ip": 'remove it: the head is the host with role = "head" in the cluster file',
    "network_interface": "give network_interface under [[hosts]], or under [defaults] where all are alike",
}


@dataclass(frozen=True, slots=True)
class LoadedCluster:
    """The settings of every host of the cluster file."""

    file: ClusterFile
    configs: Mapping[str, ClusterConfig]
    """By host."""
    notices: tuple[str, ...]
    layers: tuple[Layer, ...] = ()
    """Of the head's host, highest first."""
    host: str | None = None
    """VLLMRAY_HOST."""


def load_cluster(
    flags: Mapping[str, Any],
    *,
    env_file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    typed: Mapping[str, str] | None = None,
) -> LoadedCluster:
    """The settings of every host of the cluster file: flags > environment > .env > host > [defaults] > [cluster].

    Arguments are as for load().

    Raises:
        ConfigError: every problem of all hosts, each once.
    """
    sources = Sources.read(env_file, environ)
    upper, file = sources.typed(flags, typed or {}), sources.file
    problems = [*sources.problems(None), *(_of_one_host(upper) if file.hosts else ())]
    configs: dict[str, ClusterConfig] = {}
    layers: tuple[Layer, ...] = ()
    for entry in file.hosts:
        own = one_image(*upper, *entry.layers, file.cluster)
        layers = own if entry.role == "head" else layers
        values = settings_of(own[: len(upper)], own[len(upper) :])
        values["env"] = sources.passed(values.get("env", ()))
        config = validated({**values, **remote_folders(entry.address, values)}, own, problems)
        if config is not None:
            configs[entry.name] = _with_own_folders(entry, config)
            problems += [*_relative_folders(entry, config, own), *_native(config, own)]
    if problems:
        raise config_error([*dict.fromkeys(problems)])
    return LoadedCluster(file, configs, sources.notices(None), layers, sources.host)


def cluster_file(env_file: Path | None = None, environ: Mapping[str, str] | None = None) -> ClusterFile:
    """The cluster file, for a command that needs its hosts alone; one without hosts where there is no file.

    Raises:
        ConfigError: its hosts can't be read.
    """
    sources = Sources.read(env_file, environ)
    if sources.file_problems and sources.file.hosts:
        raise config_error(sources.file_problems)
    return sources.file


def _of_one_host(upper: Sequence[Layer]) -> list[Problem]:
    """Settings that no two hosts have alike, given for all of them."""
    return [
        Problem(origin(name, [layer]), "differs from host to host", place)
        for layer in upper
        for name, place in _OWN_PLACE.items()
        if name in layer.values
    ]


def remote_folders(address: str, values: Mapping[str, Any]) -> dict[str, str]:
    """The model cache of another host where none is named: this machine's current folder means nothing there."""
    return {"model_cache_dir": REMOTE_MODELS} if is_remote(address) and "model_cache_dir" not in values else {}


def is_remote(address: str | None) -> bool:
    """Whether a Docker address is another host's."""
    return (address or "").startswith(("ssh://", "tcp://"))


def _relative_folders(entry: HostEntry, config: ClusterConfig, layers: Sequence[Layer]) -> list[Problem]:
    if config.model_cache_dir.startswith("/") or not is_remote(entry.address):
        return []
    where = origin("model_cache_dir", layers)
    return [Problem(where, "a relative path", "give the absolute path of a folder on the hosts")]


def _with_own_folders(entry: HostEntry, config: ClusterConfig) -> ClusterConfig:
    """On this machine's own daemon a relative path is one of this machine, as in a command about one host."""
    if is_remote(entry.address) or config.model_cache_dir.startswith("/"):
        return config
    return config.model_copy(update={"model_cache_dir": str(Path(config.model_cache_dir).expanduser().absolute())})


def _native(config: ClusterConfig, layers: Sequence[Layer]) -> list[Problem]:
    if config.runtime != "native":
        return []
    where = origin("runtime", layers)
    return [Problem(where, "native nodes are not started from another host", "start them there, with --role")]
