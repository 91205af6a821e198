"""A Docker daemon as a Host; the only importer of the Docker SDK.

The SDK's low-level client is used throughout: its requests are the Engine API's own, and its pull and exec streams
keep what the convenience classes drop (images.pull discards errors inside the stream; exec_run has no exit code when
streaming).
"""

from __future__ import annotations

import io
import json
import re
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from functools import cached_property
from typing import Any, TypeVar

import docker
from docker.errors import NotFound
from docker.utils import kwargs_from_env

from vllmray.errors import HostError, say_left
from vllmray.hosts.base import BuildSpec, Container, ContainerSpec, Exec, Lock, PullEvent
from vllmray.hosts.docker.address import CONNECT_TIMEOUT_S, as_url, default_address, is_tcp, knock, refuse_bare_tcp
from vllmray.hosts.docker.build import BuildError, build, refusal
from vllmray.hosts.docker.errors import NO_REGISTRY, REFUSED_LOGIN, explain
from vllmray.hosts.docker.events import events
from vllmray.hosts.docker.exec import DockerExec
from vllmray.hosts.docker.inspected import container_of, host_info, image_of
from vllmray.hosts.docker.lock import free, take
from vllmray.hosts.docker.names import login_hint, split_image_name
from vllmray.hosts.docker.network import make_network
from vllmray.hosts.docker.podman import is_podman, make_volumes
from vllmray.hosts.docker.progress import telling
from vllmray.hosts.docker.spec import archive, base_of, creation
from vllmray.hosts.facts import HostInfo, Image
from vllmray.hosts.host_events import HostEvent
from vllmray.hosts.shell import LOCAL, output_of
from vllmray.hosts.ssh import Tunnel

T = TypeVar("T")

REQUEST_TIMEOUT_S = 60
SILENCE_S = 1800
"""A daemon that packs or unpacks a large image sends nothing for minutes."""
CHUNK = 1024**2


class DockerHost:
    """One daemon, by its address or (None) by DOCKER_HOST, the current Docker context, or the local socket."""

    def __init__(self, address: str | None = None, *, insecure_tcp: bool = False) -> None:
        with telling("read the client configuration", address or "Docker"):
            self._address = address or default_address()
            if not insecure_tcp:
                refuse_bare_tcp(address, self._address)
        self._tunnel = Tunnel(self._address) if self._address.startswith("ssh://") else None
        try:
            with self._telling("read the daemon's version", connecting=True):
                knock(self._tunnel.url if self._tunnel else self._address)
                self._api = self._connect(self._tunnel.url if self._tunnel else address)
        except BaseException:
            if self._tunnel:
                self._tunnel.close()
            raise

    @staticmethod
    def _connect(address: str | None) -> docker.APIClient:
        if address is None:
            client = docker.from_env(timeout=CONNECT_TIMEOUT_S)
        else:
            tls = kwargs_from_env().get("tls") if is_tcp(address) else None
            client = docker.DockerClient(base_url=as_url(address, tls), tls=tls or False, timeout=CONNECT_TIMEOUT_S)
        # Creating the client reads the daemon's version, so it answers; from here on a request may take longer.
        client.api.timeout = REQUEST_TIMEOUT_S
        return client.api

    @property
    def address(self) -> str:
        return self._address

    @cached_property
    def _version(self) -> Mapping[str, Any]:
        """What GET /version says of the daemon."""
        return self._api.version()

    def _telling(self, what: str, *, connecting: bool = False) -> AbstractContextManager[None]:
        """Every failure of the SDK becomes a HostError that names this host."""
        way = self._tunnel.last_words if self._tunnel else str
        return telling(what, self._address, way, connecting=connecting)

    def ping(self) -> None:
        with self._telling("ping the daemon", connecting=True):
            self._api.ping()

    def info(self) -> HostInfo:
        with self._telling("read the daemon's info", connecting=True):
            return host_info(self._api.info(), self._version)

    def shell(self, script: str, *, timeout: float) -> str | None:
        if self._tunnel:
            return self._tunnel.run(script, timeout=timeout)
        if self._address.startswith("unix://") and sys.platform == "linux":  # elsewhere it leads into a virtual machine
            return output_of(LOCAL, script, self._address, timeout=timeout)
        return None

    def image(self, name: str) -> Image | None:
        with self._telling(f"inspect image {name}"):
            try:
                found = self._api.inspect_image(name)  # type: ignore[no-untyped-call]
            except NotFound:
                return None
        return image_of(found)

    def pull(self, name: str) -> Iterator[PullEvent]:
        try:
            yield from self._pull(name)
        except HostError as error:
            said = error.details or ""
            if re.search(REFUSED_LOGIN, said, re.IGNORECASE):
                error.hint = login_hint(name)
            elif re.search(NO_REGISTRY, said, re.IGNORECASE):
                here = self._address if self._tunnel else "ssh://USER@THIS_HOST"
                error.hint = (
                    "This host can't reach the image's registry. On a host that has the image:\n"
                    f"    vllmray image copy {name} --to {here}"
                )
            raise

    def _pull(self, name: str) -> Iterator[PullEvent]:
        repository, tag = split_image_name(name)
        if self._tunnel:
            self._tunnel.reopen()  # a pull that lost it is tried again (cluster/images/pull.py)
        with self._telling(f"pull {name}"):
            for line in self._api.pull(repository, tag=tag, stream=True, decode=True):
                if "error" in line:
                    raise explain(self._address, f"pull {name}", line["error"])
                detail = line.get("progressDetail") or {}
                total = detail.get("total")
                yield PullEvent(line.get("id", ""), line.get("status", ""), int(detail.get("current") or 0), total)

    def build(self, spec: BuildSpec, tag: str) -> Iterator[str]:
        given = ", ".join(f"{name}={value}" for name, value in spec.arguments.items())
        what = f"build {tag} with {given}" if given else f"build {tag}"
        with self._telling(what):
            try:
                yield from build(self._api, spec, tag)
            except BuildError as error:
                raise explain(self._address, what, str(error)) from error

    def save(self, names: Sequence[str]) -> Iterator[bytes]:
        what = f"read {' and '.join(names)}"
        with (
            self._telling(what),
            self._api.get(
                self._url("images/get"), params={"names": list(names)}, stream=True, timeout=SILENCE_S
            ) as answer,
        ):
            if not answer.ok:
                raise explain(self._address, what, refusal(answer))
            # Read through http.client, which tells a stream that broke off from one that ended.
            while chunk := answer.raw.read(CHUNK):
                yield chunk

    def load(self, stream: Iterator[bytes]) -> None:
        with (
            self._telling("load the image"),
            self._api.post(
                self._url("images/load"),
                data=stream,
                headers={"Content-Type": "application/x-tar"},
                stream=True,
                timeout=SILENCE_S,
            ) as answer,
        ):
            if not answer.ok:
                raise explain(self._address, "load the image", refusal(answer))
            for line in answer.iter_lines():
                entry = json.loads(line)
                if "error" in entry:
                    raise explain(self._address, "load the image", str(entry["error"]))

    def _url(self, path: str) -> str:
        """The URL of a call that the SDK has no method for, or one that holds too much in memory."""
        return f"{self._api.base_url}/v{self._api.api_version}/{path}"

    def create_and_start(self, spec: ContainerSpec) -> Container:
        with self._telling(f"create container {spec.name}"):
            log_driver = "" if spec.restart == "no" else self._api.info()["LoggingDriver"]  # used with a policy only
            if is_podman(self._version):
                make_volumes(self._api, spec)
                spec = replace(spec, init=spec.init and spec.pid != "host")
            created = self._api.create_container(**creation(self._api, spec, log_driver))["Id"]
        try:
            with self._telling(f"put files into {spec.name}"):
                self._put_files(created, spec)
            with self._telling(f"start container {spec.name}"):
                self._api.start(created)
            return self._container(created)
        except BaseException as error:
            self._take_back(created, spec.name, error)
            raise

    def _take_back(self, container: str, name: str, why: BaseException) -> None:
        """Remove a container that could not be started; where that fails too, the original error says so."""
        try:
            with self._telling(f"remove {name}"), suppress(NotFound):
                self._api.remove_container(container, force=True, v=True)
        except HostError as error:
            say_left(why, f"{name} on {self._address}", error)

    def _put_files(self, container: str, spec: ContainerSpec) -> None:
        if spec.files or spec.home:
            user = (self._api.inspect_container(container)["Config"] or {}).get("User") or ""
            base, owner = base_of(spec), self._owner(container, user)
            self._api.put_archive(container, base, archive(spec.files, owner, base=base, home=spec.home))

    def _owner(self, container: str, user: str) -> tuple[int, int]:
        """(uid, gid) of an image's user, which may be a name that only its /etc/passwd knows."""
        name, _, group = user.partition(":")
        if not name or name in ("root", "0"):
            return 0, 0
        if name.isdigit():
            return int(name), int(group) if group.isdigit() else 0
        chunks, _ = self._api.get_archive(container, "/etc/passwd")
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
            lines = tar.extractfile("passwd").read().decode().splitlines()  # type: ignore[union-attr]  # a plain file
        for line in lines:
            entry = line.split(":")
            if entry[0] == name:
                return int(entry[2]), int(entry[3])
        raise HostError(f"{self._address}: the image's user {user} is not in its /etc/passwd")

    def containers(self, labels: Mapping[str, str]) -> list[Container]:
        with self._telling("list containers"):
            listed = self._api.containers(all=True, filters={"label": label_filter(labels)})
        return [found for entry in listed if (found := self._gone_is_none(self._container, entry["Id"]))]

    def _container(self, name: str) -> Container:
        with self._telling(f"inspect container {name}"):
            found = self._api.inspect_container(name)
        return container_of(found)

    def _gone_is_none(self, call: Callable[[str], T], name: str) -> T | None:
        """The call's result, or None when the container is gone: another command may remove it meanwhile."""
        try:
            return call(name)
        except HostError as error:
            if isinstance(error.__cause__, NotFound):
                return None
            raise

    def exec(self, container: str, argv: tuple[str, ...]) -> Exec:
        with self._telling(f"run {argv[0]} in {container}"):
            return DockerExec(self._api, container, argv, self._telling)

    def logs(
        self,
        container: str,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: float | None = None,
        stamped: bool = False,
    ) -> Iterator[str]:
        with self._telling(f"read the log of {container}"):
            chunks = self._api.logs(
                container,
                stream=True,
                follow=follow,
                tail="all" if tail is None else tail,
                since=since or None,
                timestamps=stamped,
            )
            try:
                # The stream that it wraps: CancellableStream itself takes a broken connection for the end of the log
                # (docker 7.2, types/daemon.py).
                yield from _lines(getattr(chunks, "_stream", chunks))
            finally:
                chunks.close()

    def events(self, labels: Mapping[str, str], *, since: float | None) -> list[HostEvent]:
        with self._telling("read the daemon's events"):
            return events(self._api, label_filter(labels), since)

    def restart(self, container: str, *, timeout: float) -> None:
        with self._telling(f"restart {container}"):
            self._api.restart(container, timeout=int(timeout))

    def stop_and_remove(self, container: str, *, timeout: float) -> None:
        with self._telling(f"stop {container}"), suppress(NotFound):
            self._api.stop(container, timeout=int(timeout))
            self._api.remove_container(container, force=True, v=True)

    def lock(self, name: str, image: str, labels: Mapping[str, str]) -> Lock:
        with self._telling(f"take the lock {name}"):
            return take(self._api, name, image, labels)

    def break_lock(self, name: str) -> None:
        with self._telling(f"break the lock {name}"):
            free(self._api, name)

    def make_network(self, name: str, labels: Mapping[str, str]) -> str:
        with self._telling(f"create network {name}"):
            return make_network(self._api, name, labels)

    def prune(self, labels: Mapping[str, str]) -> list[str]:
        wanted = {"label": label_filter(labels)}
        with self._telling("remove volumes and networks"):
            names = [str(volume["Name"]) for volume in self._api.volumes(filters=wanted)["Volumes"] or []]
            for name in names:
                with suppress(NotFound):
                    self._api.remove_volume(name)
            for network in self._api.networks(filters=wanted):
                with suppress(NotFound):
                    self._api.remove_network(network["Id"])
                    names.append(network["Name"])
        return names

    def close(self) -> None:
        self._api.close()
        if self._tunnel:
            self._tunnel.close()


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line.decode(errors="replace").rstrip("\r") for line in lines)
    if rest:
        yield rest.decode(errors="replace")


def label_filter(labels: Mapping[str, str]) -> list[str]:
    """The Engine API's form: "key=value", or the key alone."""
    return [f"{key}={value}" if value else key for key, value in labels.items()]
