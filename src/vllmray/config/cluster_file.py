"""The cluster file, vllmray.toml: the settings of a cluster, and its hosts. Every problem in it has line and column.

    version = 1
    share = ["image", "model"]
    [cluster]      settings of the whole cluster
    [defaults]     settings of each host
    [[hosts]]      one host, and what differs there

A file of settings alone, without tables, is read as before it had hosts.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from vllmray.config.explain import Problem
from vllmray.config.layers import Layer, merged
from vllmray.config.models import ClusterConfig, Role
from vllmray.config.toml_positions import Path as Keys
from vllmray.config.toml_positions import positions
from vllmray.config.values import AUTO, LOGINS, as_typed, split_variables
from vllmray.errors import ConfigError
from vllmray.secure_files import read_trusted

VERSION = 1
NOT_IN_THE_CLUSTER_FILE = (*LOGINS, "ray_token", "api_key", "scrape_token")
SHARED = ("image", "model")
"""What hosts can get from each other."""
OF_A_HOST = (
    *("gpus", "node_ip", "network_interface", "model_cache_dir", "runtime", "python", "env", "volumes", "user"),
    *("shm_size", "object_store_memory", "memlock", "nofile", "rdma"),
)
"""Settings that may differ between hosts; all others are the cluster's."""
OWN_OF_A_HOST = ("node_ip", "head_ip")
"""Settings that no two hosts have alike."""
OTHER_NAMES = {"name": "cluster", "model_cache": "model_cache_dir"}
"""Names of the file for settings."""
WORDS = ("layout", "executor")
"""Keys of [cluster] that are no settings of their own."""
EXECUTORS = ("ray",)
LAYOUT = re.compile(r"\s*TP\s*(\d{1,4})\s*,?\s*PP\s*(\d{1,4})\s*", re.IGNORECASE)
"""As `vllmray plan` words it: TP 2, PP 2."""
OWN_SOCKET = "unix:///var/run/docker.sock"
ADDRESS = re.compile(
    r"(?:[\w.-]+@)?(?:[A-Za-z0-9][\w.-]*|\[[0-9A-Fa-f:.]+(?:%\w+)?\])(?::\d{1,5})?(?P<path>(?:/[\w./-]*)?)", re.ASCII
)
"""[USER@]HOST[:PORT][/PATH]."""


@dataclass(frozen=True, slots=True)
class HostEntry:
    """One host of the file."""

    name: str
    """Short and unique: the alias, or the host's name in the address."""
    address: str
    """As Docker takes it: an alias "gpu1" is ssh://gpu1."""
    role: Role
    layers: tuple[Layer, ...] = ()
    """The host's own settings, and the defaults of all hosts; highest first."""

    @property
    def settings(self) -> dict[str, Any]:
        """By field name: defaults, overridden by the host's own."""
        return settings_of((), self.layers)


@dataclass(frozen=True, slots=True)
class ClusterFile:
    """What the file says."""

    path: Path
    cluster: Layer
    """Settings of the whole cluster."""
    hosts: tuple[HostEntry, ...] = ()
    """None for a file of settings alone."""
    share: frozenset[str] = field(default_factory=frozenset)

    @property
    def settings(self) -> Mapping[str, Any]:
        """Those of the whole cluster, by field name."""
        return self.cluster.values


def settings_of(typed: Sequence[Layer], file: Sequence[Layer]) -> dict[str, Any]:
    """All layers as one, highest first; of the file's `env` each variable from its highest layer that has it.

    An `env` that is typed takes the place of the file's, as every setting does.
    """
    found = merged([*typed, *file])
    if any("env" in layer.values for layer in typed):
        return found
    variables: dict[str, str] = {}
    for layer in reversed(file):
        texts = split_variables(layer.values.get("env", ()))
        if not isinstance(texts, list | tuple):
            return found  # no list: pydantic says so
        variables |= {str(text).partition("=")[0]: text for text in texts}
    return found | ({"env": [*variables.values()]} if variables else {})


def read_cluster_file(path: Path) -> tuple[ClusterFile, list[Problem]]:
    """The file, and every problem in it but those of values, which pydantic finds.

    Raises:
        ConfigError: it can't be read, or is no TOML.
    """
    try:
        text = read_trusted(path)
        values: dict[str, Any] = tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"can't read {path}: {error}", hint="It must be TOML: name = value, a line each.") from error
    reader = _Reader(path, text, values)
    return reader.read(), reader.problems


class _Reader:
    """Turns a parsed document into layers, and collects problems."""

    def __init__(self, path: Path, text: str, values: dict[str, Any]) -> None:
        self._path, self._values = path, values
        self._text = text.replace("\r\n", "\n")
        self._positions: Mapping[Keys, tuple[int, int]] | None = None
        self.problems: list[Problem] = []

    def read(self) -> ClusterFile:
        top = dict(self._values)
        entries = top.pop("hosts", [])
        tables = {name: top.pop(name) for name in ("cluster", "defaults") if isinstance(top.get(name), dict)}
        has_hosts = isinstance(entries, list) and bool(entries)
        version = top.pop("version", VERSION)
        if version != VERSION or isinstance(version, bool):
            self._say(("version",), "unknown version", f"this vllmray reads version = {VERSION}")
        given = tables.get("cluster", {}).pop("share", None)
        share = self._share(top.pop("share", given if given is not None else [*SHARED] if has_hosts else []))
        if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
            self._say(("hosts",), "not a list of tables", "write [[hosts]] above the settings of each host")
            entries = []
        allowed = {*ClusterConfig.model_fields} - {*NOT_IN_THE_CLUSTER_FILE, *(OWN_OF_A_HOST if has_hosts else ())}
        settings = self._layer((), top, allowed)
        settings = _over(self._layer(("cluster",), tables.get("cluster", {}), allowed), settings)
        defaults = self._layer(("defaults",), tables.get("defaults", {}), set(OF_A_HOST) - set(OWN_OF_A_HOST))
        hosts = self._hosts(entries, defaults)
        if not has_hosts:
            settings = _over(defaults, settings)
        return ClusterFile(self._path, settings, hosts, share)

    def _share(self, given: Any) -> frozenset[str]:
        if not isinstance(given, list) or not all(each in SHARED for each in given):
            self._say(("share",), "not a list of what hosts share", f"use some of {', '.join(SHARED)}, or []")
            return frozenset()
        return frozenset(given)

    def _layer(self, table: Keys, values: Mapping[str, Any], allowed: Collection[str]) -> Layer:
        """A table's settings by field name."""
        found: dict[str, Any] = {}
        names: dict[str, str] = {}
        for key, value in values.items():
            name = OTHER_NAMES.get(key, key) if table else key
            where = self._where((*table, key))
            if table == ("cluster",) and key in WORDS:
                sizes = self._word(key, value, where)
                if sizes.keys() & values.keys():
                    self.problems.append(Problem(where, "given beside a parallel size", "give layout, or the sizes"))
                found |= sizes
                names |= dict.fromkeys(sizes, where)
            elif name != key and name in values:
                self.problems.append(Problem(where, f"given as {name} too", "give it once"))
            elif name not in allowed or name == "build":
                self.problems.append(self._stranger(table, key, allowed, where))
            else:
                name, found_value = self._value(name, value, where)
                found[name], names[name] = found_value, where
        return Layer("", found, names)

    def _value(self, name: str, value: Any, where: str) -> tuple[str, Any]:
        """A setting as ClusterConfig takes it."""
        if name == "image" and isinstance(value, dict):
            build = value.get("build")
            return "build", {**value, "build": str(self._path.parent / build)} if isinstance(build, str) else value
        if name == "env" and isinstance(value, dict):
            for each, text in value.items():
                if isinstance(text, dict | list):
                    self.problems.append(Problem(where, f"{each} is not text", 'write NAME = "value"'))
            return name, [f"{each}={as_typed(each, text)}" for each, text in value.items()]
        return name, value

    def _word(self, key: str, value: Any, where: str) -> dict[str, Any]:
        if key == "executor":
            if value not in EXECUTORS:
                self.problems.append(Problem(where, "no such executor", f"use {' or '.join(EXECUTORS)}"))
            return {}
        match = LAYOUT.fullmatch(value) if isinstance(value, str) else None
        sizes = match.groups() if match else (AUTO, AUTO)
        if not match and value != AUTO:
            self.problems.append(
                Problem(where, "not a layout", 'write "auto", or as `vllmray plan` says: "TP 2, PP 2"')
            )
        return dict(zip(("tensor_parallel_size", "pipeline_parallel_size"), sizes, strict=True))

    def _stranger(self, table: Keys, key: str, allowed: Collection[str], where: str) -> Problem:
        name = OTHER_NAMES.get(key, key)
        if name in NOT_IN_THE_CLUSTER_FILE:
            return Problem(where, "a secret in a file that is shared", "put it into the environment or .env")
        if name in OWN_OF_A_HOST:
            fix = 'the head is the host with role = "head"' if name == "head_ip" else "put it under its [[hosts]]"
            return Problem(where, "differs from host to host", fix)
        if name in ClusterConfig.model_fields and name != "build":
            return Problem(where, "a setting of the whole cluster", "put it into [cluster]")
        own = {"hosts": ("address", "role"), "cluster": WORDS}.get(str(table[0]) if table else "", ())
        other = {new: old for new, old in OTHER_NAMES.items() if old in allowed} if table else {}
        known = (set(allowed) - {"build"}) | {*own} | {*other}
        known |= {"share", "version", "hosts", "defaults"} if not table else set()
        close = get_close_matches(key, known, n=1)
        return Problem(where, "no such setting", f"did you mean {close[0]}?" if close else "remove it")

    def _hosts(self, entries: list[dict[str, Any]], defaults: Layer) -> tuple[HostEntry, ...]:
        heads = [number for number, entry in enumerate(entries) if entry.get("role") == "head"]
        if entries and not heads and not any("role" in entry for entry in entries[:1]):
            heads = [0]
        for number in heads[1:]:
            self._say(("hosts", number, "role"), "a second head", "a cluster has one: leave role out for workers")
        if entries and not heads:
            self._say(("hosts", 0), "no host has the head", 'give one role = "head"')
        made: dict[str, HostEntry] = {}
        for number, entry in enumerate(entries):
            host = self._host(number, entry, "head" if number in heads[:1] else "worker", defaults)
            if host and host.name in made:
                self._say(("hosts", number), f"a second host named {host.name}", "give each host once")
            elif host:
                made[host.name] = host
        return tuple(made.values())

    def _host(self, number: int, entry: dict[str, Any], role: Role, defaults: Layer) -> HostEntry | None:
        table: Keys = ("hosts", number)
        given = {key: value for key, value in entry.items() if key not in ("address", "role")}
        own = self._layer(table, given, set(OF_A_HOST))
        if entry.get("role", role) not in ("head", "worker"):
            self._say((*table, "role"), "not a role", "use head or worker")
        address = entry.get("address")
        if not isinstance(address, str) or not address.strip():
            self._say((*table, "address") if "address" in entry else table, "no address", 'write address = "gpu1"')
            return None
        full = full_address(address.strip())
        if full is None:
            self._say((*table, "address"), "not the address of a host", "write an ssh alias, or ssh://USER@HOST")
            return None
        return HostEntry(short_name(full), full, role, (own, defaults))

    def _say(self, keys: Keys, what: str, fix: str) -> None:
        self.problems.append(Problem(self._where(keys), what, fix))

    def _where(self, keys: Keys) -> str:
        """As in "gpu in vllmray.toml:12:1"."""
        if self._positions is None:
            try:
                self._positions = positions(self._text)
            except RecursionError:  # nested deeper than the scanner goes
                self._positions = {}
        key = next((str(each) for each in reversed(keys) if isinstance(each, str)), "")
        line, column = self._positions.get(keys, (1, 1))
        return f"{key} in {self._path}:{line}:{column}"


def _over(upper: Layer, lower: Layer) -> Layer:
    """Two layers of the file as one; of an image and a Dockerfile the upper one's."""
    values = dict(lower.values)
    if {"image", "build"} & {*upper.values}:
        values = {name: value for name, value in values.items() if name not in ("image", "build")}
    return replace(upper, values=values | dict(upper.values), names=dict(lower.names) | dict(upper.names))


def full_address(text: str) -> str | None:
    """A Docker address as it is, an alias or USER@HOST as one by ssh; None for neither."""
    if text.startswith("unix:///"):
        return text
    scheme, has_one, rest = text.partition("://")
    if has_one and scheme not in ("ssh", "tcp"):
        return None
    place = ADDRESS.fullmatch(rest if has_one else text)
    return (text if has_one else f"ssh://{text}") if place and (has_one or not place["path"]) else None


def short_name(address: str) -> str:
    """What a host is called in tables: gpu1 of ssh://root@gpu1:22; of a socket, its path."""
    scheme, _, rest = address.partition("://")
    if scheme == "unix":
        return "this-host" if address == OWN_SOCKET else rest
    host = rest.rpartition("@")[2].partition("/")[0]
    return host if host.startswith("[") else host.partition(":")[0]
