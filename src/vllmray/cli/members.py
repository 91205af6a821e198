"""The hosts of a cluster file, for commands that work on all of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from vllmray.errors import ConfigError, VllmrayError

if TYPE_CHECKING:
    from vllmray.cli.options import Place
    from vllmray.cluster.members import Member
    from vllmray.config.cluster_file import ClusterFile, HostEntry
    from vllmray.config.models import ClusterConfig
    from vllmray.hosts.base import Host
    from vllmray.reporter import Board


@dataclass(frozen=True, slots=True)
class Everywhere:
    """A cluster on all hosts of its file."""

    cluster: str
    members: Sequence[Member]


def members_of(file: ClusterFile, configs: Mapping[str, ClusterConfig]) -> list[Member]:
    """A member for each host of the file, in its order, not connected yet."""
    return [member_of(entry, configs[entry.name]) for entry in file.hosts]


def member_of(entry: HostEntry, config: ClusterConfig) -> Member:
    """A host that is not connected yet."""
    from vllmray.cli.credentials import caller
    from vllmray.cli.wiring import on_runtime
    from vllmray.cluster.members import Member

    config = on_runtime(config, config.runtime or "docker")
    own = caller() if entry.address.startswith("unix://") and config.runtime == "docker" else None
    connect = partial(_connected, entry.address, config)
    return Member(entry.name, entry.address, entry.role, config, connect, caller=own)


def _connected(address: str, config: ClusterConfig) -> Host:
    from vllmray.hosts.docker.host import DockerHost

    return DockerHost(address, insecure_tcp=config.insecure_docker_tcp)


@contextmanager
def closing_all(members: Sequence[Member]) -> Iterator[None]:
    """Close every connection that is open at the end."""
    try:
        yield
    finally:
        for member in members:
            if member.connected is not None:
                with suppress(VllmrayError):
                    member.connected.close()


@contextmanager
def board(*, as_json: bool = False) -> Iterator[Board]:
    """The progress of a command over several hosts, for this terminal, pipe or --json, and the log of the run."""
    import logging

    from vllmray.cli.run_log import LOGGER
    from vllmray.output.boards import JsonBoard, PlainBoard
    from vllmray.output.logged import LoggedBoard

    logger = logging.getLogger(LOGGER)
    if as_json:
        yield LoggedBoard(JsonBoard(), logger)
    elif not sys.stderr.isatty():
        yield LoggedBoard(PlainBoard(), logger)
    else:
        from vllmray.output.live_board import LiveBoard

        with LiveBoard.on_standard_error() as live:
            yield LoggedBoard(live, logger)


def everywhere(place: Place) -> Everywhere | None:
    """The cluster of the file, where the command names no host: then it is about all of them.

    None where there is no such file, or the options or VLLMRAY_HOST name a host, a runtime or another cluster.
    """
    from vllmray.cli.wiring import file_of
    from vllmray.config.settings import load

    flags = {"cluster": place.cluster, "insecure_docker_tcp": place.insecure_docker_tcp}
    loaded = load(flags, env_file=place.env_file, fields=(*flags, "join_timeout", "engine_timeout"))
    file = None if place.host or loaded.host else file_of(place)
    if file is None:
        return None
    config = loaded.config
    configs = {
        entry.name: config.model_copy(update={"runtime": entry.settings.get("runtime") or "docker"})
        for entry in file.hosts
    }
    return Everywhere(config.cluster, members_of(file, configs))


def chosen(members: Sequence[Member], only: Sequence[str], skip: Sequence[str]) -> list[Member]:
    """Those that --only names, or all but those that --skip names.

    Raises:
        ConfigError: a name is not one of the cluster file's, or nothing is left.
    """
    names = [member.name for member in members]
    unknown = [name for name in (*only, *skip) if name not in names]
    if unknown:
        raise ConfigError(
            f"no such host in the cluster file: {', '.join(unknown)}", hint=f"Its hosts are: {', '.join(names)}."
        )
    left = [member for member in members if (not only or member.name in only) and member.name not in skip]
    if not left:
        raise ConfigError("no host is left", hint="Give fewer hosts with --skip, or others with --only.")
    return left


def say_lost(host: str, error: Exception) -> None:
    """Tell on standard error that a host can't be read, while the others are."""
    print(f"warning: {host}: {error}", file=sys.stderr, flush=True)
