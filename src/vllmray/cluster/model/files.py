"""Which files of a model a host has, and the download of a model on one host."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vllmray.cluster.probe.short_lived import remove, run_to_end, start
from vllmray.cluster.spec.model_share import fetch_spec, listing_spec
from vllmray.cluster.spec.sizes import options_of
from vllmray.config.models import ClusterConfig
from vllmray.errors import HostError
from vllmray.hosts.base import Host
from vllmray.reporter import Step
from vllmray.wait import Clock, SystemClock

GB = 1e9


@dataclass(frozen=True, slots=True)
class Listing:
    """What a host has of a model."""

    root: str
    """The folder, as containers see it."""
    commit: str
    """The revision; empty where there is none of it, or for a folder."""
    entries: tuple[Mapping[str, Any], ...]
    """As payload/model/entries.py has them."""
    whole: bool
    wrong: tuple[str, ...]
    """Files whose contents are not the hub's, as far as they were read."""
    free: int
    """Bytes on that disk."""
    marks: frozenset[str]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(int(entry["size"]) for entry in self.entries)


def revision_of(config: ClusterConfig) -> str:
    """The branch or commit that the engine asks for."""
    return options_of(config).revision or "main"


def is_of_the_hub(config: ClusterConfig) -> bool:
    """Whether the model is one of Hugging Face's hub, and not a folder or a bucket, or ModelScope's."""
    is_elsewhere = config.model_is_a_folder or "://" in config.model or "VLLM_USE_MODELSCOPE" in config.environment
    return not is_elsewhere


def listing(host: Host, config: ClusterConfig, **more: object) -> Listing:
    """What the host has of the settings' model.

    Args:
        more: of the request: mark, unmark, verify (payload/model/listing.py).

    Raises:
        HostError: it could not be read.
    """
    what = {"model": config.model, "revision": revision_of(config)}
    if config.model_is_a_folder:
        what = {"folder": config.model}
    lines = run_to_end(host, listing_spec(config, {**what, **more}))
    try:
        found = json.loads(lines[-1])
        return Listing(
            *(found["root"], found["commit"], tuple(found["entries"]), found["whole"], tuple(found["wrong"])),
            free=found["free"],
            marks=frozenset(found["marks"]),
        )
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise HostError(
            f"{host.address}: the files of {config.model} could not be listed",
            details="\n".join(lines[-20:]) or "the program printed nothing",
            hint=f"Check the folder {config.model_cache_dir} on that host.",
        ) from error


def fetch(host: Host, config: ClusterConfig, step: Step) -> None:
    """Download the model into the host's cache; one that was broken off is continued.

    Raises:
        HostError: the hub refused it, or the connection broke.
    """
    progress = Progress(step, config.model)
    container = start(host, fetch_spec(config, revision_of(config)))
    last: dict[str, Any] = {}
    try:
        for line in host.logs(container.id, follow=True):
            step.poll()
            last = progress.read(line) or last
    finally:
        remove(host, container)
    if "commit" not in last:
        raise HostError(
            f"{host.address}: {config.model} could not be downloaded",
            details=str(last.get("error") or "the download ended without a result"),
            hint="Check that the host reaches the hub, that HF_TOKEN may read the model, and the free space. The same "
            "command continues the download.",
        )


def remove_model(host: Host, config: ClusterConfig) -> int:
    """Remove the model from the host's cache, all its revisions; returns the bytes that it had.

    Raises:
        HostError: it could not be removed.
    """
    lines = run_to_end(host, listing_spec(config, {"model": config.model, "remove": True}))
    try:
        return int(json.loads(lines[-1])["removed"])
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise HostError(
            f"{host.address}: {config.model} could not be removed", details="\n".join(lines[-20:]) or None
        ) from error


class Progress:
    """Tells a step how far a download or a transfer is, from the lines of its program."""

    def __init__(self, step: Step, name: str, clock: Clock | None = None) -> None:
        self._step, self._name, self._clock = step, name, clock or SystemClock()
        self._began: tuple[float, int] | None = None
        self.tail: list[str] = []
        """Lines that are no JSON: another program's words."""

    def read(self, line: str) -> dict[str, Any] | None:
        """What the line says; None for one that is not the program's own."""
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            self.tail = [*self.tail[-19:], line]
            return None
        if "done" in found:
            self._show(int(found["done"]), int(found["total"]))
        return found

    def _show(self, done: int, total: int) -> None:
        now = self._clock.monotonic()
        self._began = self._began or (now, done)
        began, before = self._began
        rate = (done - before) / max(now - began, 0.001)
        left = f", {_in_words((total - done) / rate)} left" if rate > 0 and done < total else ""
        self._step.part(self._name, done=done, total=total, status=f"at {rate / 1e6:.0f} MB/s{left}")


def _in_words(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 90 else f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"
