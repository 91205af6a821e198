"""What every command needs: the host it was told, settings from all layers, a reporter for this terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vllmray.config.models import ClusterConfig
    from vllmray.hosts.base import Host
    from vllmray.reporter import Reporter


@dataclass(slots=True)
class Invocation:
    """What stands outside a command's own options."""

    vllm_args: tuple[str, ...] = ()
    """Everything after --."""
    debug: bool = False


@contextmanager
def open_host(address: str | None) -> Iterator[Host]:
    """The Docker host of that address, or the default one, closed again at the end."""
    from vllmray.config.settings import docker_host_variable
    from vllmray.hosts.docker_host import DockerHost

    host = DockerHost(address or docker_host_variable())
    try:
        yield host
    finally:
        host.close()


def reporter() -> Reporter:
    """For standard error, where progress goes."""
    from vllmray.output.progress import reporter_for

    return reporter_for(stream_is_terminal=sys.stderr.isatty())


def settings(flags: Mapping[str, Any], env_file: Path | None, report: Reporter) -> ClusterConfig:
    """Settings from flags, environment, .env file and defaults; a relative model_cache_dir is made absolute.

    Raises:
        ConfigError: with every problem.
    """
    from vllmray.config.settings import load

    loaded = load(flags, env_file=env_file)
    for notice in loaded.notices:
        report.warning(notice)
    folder = str(Path(loaded.config.model_cache_dir).expanduser().absolute())
    return loaded.config.model_copy(update={"model_cache_dir": folder})


def cluster_name(name: str | None, env_file: Path | None) -> str:
    """The cluster a command is about: --cluster, VLLMRAY_CLUSTER, .env, or the default."""
    from vllmray.config.settings import load

    return load({"cluster": name}, env_file=env_file).config.cluster
