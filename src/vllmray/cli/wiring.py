"""What every command needs: the host it was told, settings from all layers, a reporter for this terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllmray.errors import ClusterStateError, ConfigError, HostError, InsecureHostError

if TYPE_CHECKING:
    from vllmray.cli.options import Place
    from vllmray.cluster.locking import Holder
    from vllmray.config.models import ClusterConfig, Runtime
    from vllmray.config.settings import Loaded
    from vllmray.hosts.base import Host
    from vllmray.hosts.native_host import NativeHost
    from vllmray.hub.files import ModelFiles
    from vllmray.reporter import Reporter


@dataclass(slots=True)
class Invocation:
    """What stands outside a command's own options."""

    vllm_args: tuple[str, ...] = ()
    """Everything after --."""
    debug: bool = False


NO_DAEMON = "no Docker daemon answers"


@dataclass(frozen=True, slots=True)
class Target:
    """The host a command works on, and the runtime there."""

    host: Host
    runtime: Runtime
    why: str | None
    """Why that runtime; None when the user said it."""


@dataclass(frozen=True, slots=True)
class About:
    """Which cluster a command is about, and where it is."""

    cluster: str
    host: Host
    runtime: Runtime


@contextmanager
def open_target(
    address: str | None, runtime: str | None, *, having: str | None = None, insecure_tcp: bool = False
) -> Iterator[Target]:
    """The host to work on: a Docker daemon where one answers, else this machine's processes.

    Args:
        address: of a Docker host, which settles the runtime too.
        runtime: docker, native, or None to choose.
        having: prefer the runtime that has this cluster on this machine.
        insecure_tcp: take a Docker daemon over TCP without TLS.

    Raises:
        HostError: the daemon that was asked for does not answer.
    """
    target = _choose(address, runtime, having, insecure_tcp=insecure_tcp)
    try:
        yield target
    finally:
        target.host.close()


def _choose(address: str | None, runtime: str | None, having: str | None, *, insecure_tcp: bool) -> Target:
    from vllmray.config.settings import docker_host_variable

    address = address or docker_host_variable()
    if runtime == "native":
        if address:
            raise HostError(f"{address} is a Docker host", hint="Give --host or --runtime native, not both.")
        return Target(_native(), "native", None)
    if runtime is None and address is None and having and _has(having):
        return Target(_native(), "native", f"it has cluster {having} here")

    from vllmray.hosts.docker_host import DockerHost

    try:
        host = DockerHost(address, insecure_tcp=insecure_tcp)
        return Target(host, "docker", None if runtime or address else f"a daemon answers at {host.address}")
    except HostError as error:
        if runtime or address or isinstance(error, InsecureHostError):
            raise
        return Target(_native(), "native", f"{NO_DAEMON}: {_in_one_line(error)}")


def _native() -> NativeHost:
    from vllmray.config.settings import own_environment, state_folder
    from vllmray.hosts.native_host import NativeHost

    return NativeHost(state_folder(), own_environment())


def _has(cluster: str) -> bool:
    """Whether nodes of that cluster are processes of this machine, as far as their records can be read."""
    from vllmray.cluster.labels import selector
    from vllmray.config.settings import state_folder

    if not (state_folder() / "native").exists():
        return False
    with suppress(HostError):
        return bool(_native().containers(selector(cluster)))
    return False


def _in_one_line(error: HostError) -> str:
    return (error.details or error.message).strip().splitlines()[0][:150]


@contextmanager
def open_cluster(place: Place) -> Iterator[About]:
    """For a command about a cluster that is there: its name and where it is, from flags, environment, .env or defaults.

    No other setting is looked at, so none that is wrong can be in the way.
    """
    from vllmray.config.settings import load

    flags = {
        "cluster": place.cluster,
        "runtime": place.runtime,
        "insecure_docker_tcp": place.insecure_docker_tcp,
    }
    config = load(flags, env_file=place.env_file, fields=tuple(flags)).config
    insecure = config.insecure_docker_tcp
    with open_target(place.host, config.runtime, having=config.cluster, insecure_tcp=insecure) as target:
        try:
            yield About(config.cluster, target.host, target.runtime)
        except ClusterStateError as error:
            if target.why and target.why.startswith(NO_DAEMON):  # it may well be in containers that nobody shows
                error.message += f"; {target.why}"
            raise


def holder(command: str) -> Holder:
    """This process, as others are told who wait for it.

    Args:
        command: the word after vllmray.
    """
    from vllmray.cluster.locking import Holder
    from vllmray.config.settings import own_name

    return Holder(own_name(), f"vllmray {command}", os.getpid())


def reporter() -> Reporter:
    """For standard error, where progress goes."""
    from vllmray.output.progress import reporter_for

    return reporter_for(stream_is_terminal=sys.stderr.isatty())


def settings(flags: Mapping[str, Any], env_file: Path | None, report: Reporter) -> Loaded:
    """Settings from flags, environment, .env file and defaults; relative paths of this machine are made absolute.

    Raises:
        ConfigError: with every problem.
    """
    from vllmray.config.settings import load

    loaded = load(flags, env_file=env_file)
    for notice in loaded.notices:
        report.warning(notice)
    names = ("model_cache_dir", "ssl_certfile", "ssl_keyfile")
    given = {name: getattr(loaded.config, name) for name in names if getattr(loaded.config, name)}
    absolute = {name: _absolute(name, path) for name, path in given.items()}
    return replace(loaded, config=loaded.config.model_copy(update=absolute))


def _absolute(name: str, path: str) -> str:
    from vllmray.config.settings import flag_of

    try:
        return str(Path(path).expanduser().absolute())
    except RuntimeError as error:  # ~nobody
        raise ConfigError(f"{flag_of(name)}: {path!r} can't be a path: {error}") from error


def model_files(config: ClusterConfig) -> ModelFiles | None:
    """What can be read of the model from here; None for a folder that this machine does not have."""
    from vllmray.cluster.fit import options_of
    from vllmray.hub.read import read_model

    return read_model(
        config.model,
        token=config.hf_token,
        cache=Path(config.model_cache_dir),
        environment=config.environment,
        revision=options_of(config).revision,
    )


def on_runtime(config: ClusterConfig, runtime: Runtime) -> ClusterConfig:
    """The settings with the runtime settled; natively the image is a Python."""
    if runtime == "docker":
        return config.model_copy(update={"runtime": runtime})
    return config.model_copy(update={"runtime": runtime, "image": config.python or sys.executable})


def say_runtime(target: Target, report: Reporter) -> None:
    """Which runtime, and why, unless the user said it."""
    if target.why:
        report.note(f"runtime {target.runtime}: {target.why}")
