"""Recent events of containers, from the Docker daemon.

A daemon keeps its last 256 events of all kinds, in memory, so none from before its own start (moby,
daemon/events/events.go, eventsLimit). An exec makes three of them, and each `vllmray status` is an exec: hours later
few are left. So the history of a cluster is what its programs wrote to their logs (journal.py); these events add what
no program can log about its own end.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, get_args

from docker.errors import DockerException

from vllmray.hosts.docker.build import refusal
from vllmray.hosts.host_events import HostAction, HostEvent

if TYPE_CHECKING:
    from docker import APIClient

ACTIONS: tuple[HostAction, ...] = get_args(HostAction)
"""The others are noise: exec_create, exec_start, exec_die, attach, resize, top."""


def events(api: APIClient, labels: list[str], since: float | None) -> list[HostEvent]:
    """The events of containers with these labels, in the Engine API's form; may take a second.

    Raises:
        docker.errors.DockerException, requests.RequestException: the daemon did not give them.
    """
    base = f"{api.base_url}/v{api.api_version}"
    # The end is by the daemon's clock, which a response states in whole seconds: the daemon sends events until then,
    # so that none of this second is left out.
    until = _time_there(api, base) + 1
    if since is not None and since > until:
        return []
    filters = {"type": ["container"], "event": ACTIONS, "label": labels}
    parameters = {"since": f"{since or 0:.9f}", "until": str(until), "filters": json.dumps(filters)}
    with api.get(f"{base}/events", params=parameters, stream=True, timeout=api.timeout) as answer:
        if not answer.ok:
            raise DockerException(refusal(answer))
        found = [_event(json.loads(line)) for line in answer.iter_lines() if line]
    # Again, because Podman's filter takes a container with any of the labels.
    return [event for event in found if _has(event.labels, labels)]


def _has(carried: Mapping[str, str], labels: list[str]) -> bool:
    wanted = [label.partition("=") for label in labels]
    return all(name in carried and value in ("", carried[name]) for name, _, value in wanted)


def _time_there(api: APIClient, base: str) -> float:
    with api.get(f"{base}/_ping", timeout=api.timeout) as answer:
        date = answer.headers.get("Date")
    return parsedate_to_datetime(date).timestamp() if date else time.time()


def _event(entry: dict[str, Any]) -> HostEvent:
    """Of an entry as the Engine API has it; a container's labels are among its attributes, next to name and image."""
    said: dict[str, str] = entry["Actor"]["Attributes"]
    return HostEvent(
        at=entry["timeNano"] / 1e9,
        container=said["name"],
        action=entry["Action"],
        labels=said,
        exit_code=int(said["exitCode"]) if entry["Action"] == "die" else None,
        signal=int(said["signal"]) if entry["Action"] == "kill" else None,
    )
