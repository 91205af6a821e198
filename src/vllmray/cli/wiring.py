"""What every command needs: the host, settings from all layers, a reporter for this terminal."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllmray.cli.mark import clusters_known_here, docker_mark
from vllmray.cli.run_log import LOGGER
from vllmray.errors import ConfigError, HostError, InsecureHostError

if TYPE_CHECKING:
    from vllmray.cli.options import Place
    from vllmray.cluster.lock import Holder
    from vllmray.config.cluster_file import ClusterFile
    from vllmray.config.models import ClusterConfig, Runtime
    from vllmray.config.settings import Loaded
    from vllmray.hosts.base import Host
    from vllmray.hosts.native.host import NativeHost
    from vllmray.reporter import Reporter

OTHER_SYSTEMS = {"darwin": "macOS"}
"""Names of systems, by what Python calls them."""


@dataclass(slots=True)
class Invocation:
    """What main.py has read from the command line, outside a command's own options."""

    vllm_args: tuple[str, ...] = ()
    """Everything after --."""
    debug: bool = False
    as_json: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """The host a command works on, and the runtime there."""

    host: Host
    runtime: Runtime
    why: str | None
    """Why that runtime was chosen; None if the user chose it."""


@dataclass(frozen=True, slots=True)
class About:
    """The cluster that a command works on, and where it is."""

    cluster: str
    host: Host
    runtime: Runtime


@contextmanager
def open_target(
    address: str | None,
    runtime: str | None,
    *,
    having: str | None = None,
    starts: bool = False,
    insecure_tcp: bool = False,
    default_socket: Path | None = None,
) -> Iterator[Target]:
    """The host to work on: this machine if the cluster's nodes are its processes, else a Docker daemon.

    Args:
        address: of a Docker host, by --host or VLLMRAY_HOST, which implies the runtime.
        runtime: docker, native, or None to choose.
        having: the cluster that the command is about.
        starts: the command may start that cluster: natively, where this machine has no Docker at all.
        insecure_tcp: accept a Docker daemon over TCP without TLS.
        default_socket: the socket that is tried when no address is set; None for docker's own default.

    Raises:
        HostError: the daemon does not answer. The native runtime never replaces a daemon that should be there.
    """
    target = _without_a_daemon(address, runtime, having, starts=starts, default_socket=default_socket) or _in_docker(
        address, runtime, insecure_tcp=insecure_tcp
    )
    try:
        yield target
    finally:
        target.host.close()


def _without_a_daemon(
    address: str | None, runtime: str | None, having: str | None, *, starts: bool, default_socket: Path | None
) -> Target | None:
    """This machine with the native runtime, if that is asked for or applies; else None."""
    if runtime == "native":
        if address:
            raise HostError(f"{address} is a Docker host", hint="Give --host or --runtime native, not both.")
        return Target(_native(), "native", None)
    if runtime or address or having is None:
        return None
    if _has(having):
        return Target(_native(), "native", f"cluster {having} runs natively on this machine")
    if starts and _can_be_native() and _is_without_docker(having, default_socket=default_socket):
        return Target(_native(), "native", "no Docker on this machine: no address is set, and there is no socket")
    return None


def runtime_to_be(address: str | None, runtime: str | None, cluster: str) -> Runtime:
    """The runtime that `up` would choose for a cluster; no daemon is asked. Arguments as for open_target."""
    target = _without_a_daemon(address, runtime, cluster, starts=True, default_socket=None)
    return target.runtime if target else "docker"


def _in_docker(address: str | None, runtime: str | None, *, insecure_tcp: bool) -> Target:
    from vllmray.hosts.docker.host import DockerHost

    try:
        host = DockerHost(address, insecure_tcp=insecure_tcp)
    except HostError as error:
        if runtime is None and address is None and not isinstance(error, InsecureHostError):
            instead = (
                "To run without Docker, as processes of this machine: --runtime native."
                if _can_be_native()
                else "To use another host: --host ssh://USER@HOST, or VLLMRAY_HOST."
            )
            error.hint = f"{error.hint}\n{instead}" if error.hint else instead
        raise
    return Target(host, "docker", None if runtime or address else f"Docker daemon at {host.address}")


def _is_without_docker(*clusters: str, default_socket: Path | None = None) -> bool:
    """No sign of Docker on this machine: neither in docker's settings nor from an earlier `up` of those clusters."""
    from vllmray.config.settings import own_environment
    from vllmray.hosts.docker.address import DEFAULT_SOCKET, is_without_docker

    is_marked = any(docker_mark(each).is_there for each in clusters)
    return not is_marked and is_without_docker(own_environment(), default_socket or DEFAULT_SOCKET)


def _can_be_native() -> bool:
    """The supervisors of processes need Linux: /proc, /dev/shm, prctl(2). Everything else runs on macOS too."""
    return sys.platform == "linux"


def _native() -> NativeHost:
    if not _can_be_native():
        raise HostError(
            f"the native runtime needs Linux, and this machine runs {OTHER_SYSTEMS.get(sys.platform, sys.platform)}",
            hint="Name a Linux host with Docker: --host ssh://USER@HOST, or VLLMRAY_HOST.",
        )
    from vllmray.config.settings import own_environment, state_folder
    from vllmray.hosts.native.host import NativeHost

    return NativeHost(state_folder(), own_environment())


def _has(cluster: str | None) -> bool:
    """Whether nodes of that cluster (None: of any) are processes of this machine.

    Raises:
        HostError: there are records of nodes that can't be read.
    """
    from vllmray.cluster.spec.labels import selector
    from vllmray.config.settings import state_folder

    if not (_can_be_native() and (state_folder() / "native").exists()):
        return False
    try:
        return bool(_native().containers(selector(cluster)))
    except HostError as error:
        error.hint = f"{error.hint or ''}\nFor a cluster in containers: --runtime docker.".strip()
        raise


@contextmanager
def open_cluster(place: Place) -> Iterator[About]:
    """For a command about an existing cluster: its name and host, from flags, environment, .env or defaults.

    No other setting is read, so that an invalid one does not matter.
    """
    from vllmray.config.settings import load

    flags = {
        "cluster": place.cluster,
        "runtime": place.runtime,
        "insecure_docker_tcp": place.insecure_docker_tcp,
    }
    loaded = load(flags, env_file=place.env_file, fields=tuple(flags))
    config, insecure = loaded.config, loaded.config.insecure_docker_tcp
    address = place.host or loaded.host or (None if config.runtime else head_address(place))
    with open_target(address, config.runtime, having=config.cluster, insecure_tcp=insecure) as target:
        yield About(config.cluster, target.host, target.runtime)


def head_address(place: Place) -> str | None:
    """The host with the head in the cluster file; None as for file_of."""
    file = file_of(place)
    return next((entry.address for entry in file.hosts if entry.role == "head"), None) if file else None


def file_of(place: Place) -> ClusterFile | None:
    """The cluster file with hosts; None where options name a runtime or another cluster, or there is no such file."""
    from vllmray.config.cluster_settings import cluster_file
    from vllmray.config.models import DEFAULT_CLUSTER

    if place.runtime:
        return None
    file = cluster_file(place.env_file)
    is_another = place.cluster and place.cluster != file.settings.get("cluster", DEFAULT_CLUSTER)
    return None if is_another or not file.hosts else file


@contextmanager
def open_all(place: Place) -> Iterator[list[Host]]:
    """For a command about every cluster: the Docker daemon and this machine's processes, or the one that was chosen.

    Raises:
        HostError: the daemon does not answer. It is left out only if there are native nodes and no sign of Docker.
    """
    from vllmray.config.settings import load, state_folder

    flags = {"runtime": place.runtime, "insecure_docker_tcp": place.insecure_docker_tcp}
    loaded = load(flags, env_file=place.env_file, fields=tuple(flags))
    config, address = loaded.config, place.host or loaded.host
    with ExitStack() as opened:
        hosts: list[Host] = []
        is_said = bool(config.runtime or address)
        if is_said or not (_has(None) and _is_without_docker(*clusters_known_here())):
            said = open_target(address, config.runtime, insecure_tcp=config.insecure_docker_tcp)
            hosts.append(opened.enter_context(said).host)
        if not is_said and _can_be_native() and (state_folder() / "native").exists():
            hosts.append(opened.enter_context(open_target(None, "native")).host)
        yield hosts


def holder(command: str) -> Holder:
    """This process, as commands that wait for its lock name it.

    Args:
        command: the word after vllmray.
    """
    from vllmray.cluster.lock import Holder
    from vllmray.config.settings import own_name

    return Holder(own_name(), f"vllmray {command}", os.getpid())


def reporter() -> Reporter:
    """The reporter for standard error, where progress goes, and for the log of the run."""
    from vllmray.output.logged import LoggedReporter

    return LoggedReporter(_shown_reporter(), logging.getLogger(LOGGER))


def _shown_reporter() -> Reporter:
    if sys.stderr.isatty():  # rich is imported where it is used: it costs every command's start
        from vllmray.output.live import LiveReporter

        return LiveReporter.on_standard_error()
    from vllmray.output.progress import PlainReporter

    return PlainReporter()


def settings(
    flags: Mapping[str, Any],
    env_file: Path | None,
    report: Reporter,
    *,
    typed: Mapping[str, str] | None = None,
    host: str | None = None,
) -> Loaded:
    """Settings from flags, environment, .env file and defaults; relative paths of this machine are made absolute.

    The folder of models is the host's: for another host than this one, a relative path means nothing.

    Args:
        typed: this command's names of fields, where they differ from the options of `up`.
        host: as it was typed; without it, VLLMRAY_HOST or docker's own settings name one.

    Raises:
        ConfigError: with every problem.
    """
    from vllmray.config.settings import load

    loaded = _with_remote_folders(load(flags, env_file=env_file, typed=typed, host=host), host)
    for notice in loaded.notices:
        report.warning(notice)
    names = ("model_cache_dir", "ssl_certfile", "ssl_keyfile")
    given = {name: getattr(loaded.config, name) for name in names if getattr(loaded.config, name)}
    changed = {name: _absolute(name, path) for name, path in given.items()}
    return replace(loaded, config=loaded.config.model_copy(update=changed))


def _with_remote_folders(loaded: Loaded, host: str | None) -> Loaded:
    from vllmray.config.cluster_settings import REMOTE_MODELS, is_remote
    from vllmray.config.explain import Problem, config_error, origin
    from vllmray.config.settings import own_environment

    address = host or loaded.host or own_environment().get("DOCKER_HOST")
    config = loaded.config
    if config.runtime == "native" or not is_remote(address) or config.model_cache_dir.startswith("/"):
        return loaded
    if any("model_cache_dir" in layer.values for layer in loaded.layers):
        where = origin("model_cache_dir", loaded.layers)
        raise config_error([Problem(where, "a relative path", f"give the absolute path of a folder on {address}")])
    return replace(loaded, config=config.model_copy(update={"model_cache_dir": REMOTE_MODELS}))


def _absolute(name: str, path: str) -> str:
    from vllmray.config.settings import flag_of

    try:
        return str(Path(path).expanduser().absolute())
    except RuntimeError as error:  # ~nobody
        raise ConfigError(f"{flag_of(name)}: invalid path {path!r}: {error}") from error


def on_runtime(config: ClusterConfig, runtime: Runtime) -> ClusterConfig:
    """The settings with the chosen runtime; in the native one the image is a Python."""
    if runtime == "docker":
        return config.model_copy(update={"runtime": runtime})
    return config.model_copy(update={"runtime": runtime, "image": config.python or sys.executable})


def say_runtime(target: Target, report: Reporter) -> None:
    """Report the runtime and why it was chosen, unless the user chose it."""
    if target.why:
        report.note(f"runtime {target.runtime}: {target.why}")
