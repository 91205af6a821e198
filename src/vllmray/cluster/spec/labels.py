"""The cluster's state: labels on containers and volumes, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from vllmray.config.models import ClusterConfig, fields_of
from vllmray.version import __version__

CLUSTER = "io.vllmray.cluster"
ROLE = "io.vllmray.role"
CONFIG = "io.vllmray.config"
SECRETS = "io.vllmray.secrets"
"""A mark of each secret that the container has (cluster/spec/contents.py); no secret."""
VERSION = "io.vllmray.version"
LOCK = "io.vllmray.lock"
"""On a lock, the cluster that it locks. Not CLUSTER: that label finds what belongs to the cluster."""
LOCK_HOLDER = f"{LOCK}.holder"
LOCK_SINCE = f"{LOCK}.since"

HEAD, WORKER, ENGINE, PROBE = "head", "worker", "engine", "probe"
STOP_ORDER = (PROBE, ENGINE, WORKER, HEAD)


def selector(cluster: str | None, role: str | None = None) -> dict[str, str]:
    """Labels that find a cluster's containers; None stands for every cluster, or every role."""
    wanted = {CLUSTER: cluster or ""}
    if role:
        wanted[ROLE] = role
    return wanted


def identity(config: ClusterConfig, role: str) -> dict[str, Any]:
    """What must be equal for a container of this role to be kept as it is; never a secret."""
    names = fields_of("node", "engine") if role == ENGINE else fields_of("node")
    values = config.model_dump(mode="json", include=set(names))
    if role == WORKER and not config.model_is_a_folder:
        del values["model"]  # only the engine names it
    values["gpus"] = str(config.gpus)
    return {name: values[name] for name in names if name in values}


def container_labels(config: ClusterConfig, role: str, marks: Mapping[str, str]) -> dict[str, str]:
    """All labels of a container.

    Args:
        marks: of its secrets.
    """
    text = json.dumps(identity(config, role), sort_keys=True, separators=(",", ":"))
    return {
        CLUSTER: config.cluster,
        ROLE: role,
        CONFIG: text,
        SECRETS: json.dumps(marks, sort_keys=True, separators=(",", ":")),
        VERSION: __version__,
    }


def volume_labels(config: ClusterConfig, role: str | None = None) -> dict[str, str]:
    """All labels of a volume.

    Args:
        role: of the one container that it belongs to; None for what several share.
    """
    return {CLUSTER: config.cluster} | ({ROLE: role} if role else {})


def carried_config(labels: Mapping[str, str]) -> dict[str, Any]:
    """The settings that a container says it was made from; empty for a label that can't be read."""
    return _carried(labels, CONFIG)


def carried_marks(labels: Mapping[str, str]) -> dict[str, Any]:
    """The marks of a container's secrets (contents.Secrets.marks); empty for a label that can't be read."""
    return _carried(labels, SECRETS)


def _carried(labels: Mapping[str, str], name: str) -> dict[str, Any]:
    try:
        values = json.loads(labels.get(name, "{}"))
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def changed_fields(labels: Mapping[str, str], config: ClusterConfig, role: str, marks: Mapping[str, str]) -> list[str]:
    """A line for each setting and each secret in which a running container differs from what is wanted now."""
    had = carried_marks(labels)
    secrets = [name for name in sorted({*had, *marks}) if had.get(name) != marks.get(name)]
    return _changed_settings(labels, config, role) + [f"{name}: not the one it was started with" for name in secrets]


def _changed_settings(labels: Mapping[str, str], config: ClusterConfig, role: str) -> list[str]:
    before = carried_config(labels)
    now = identity(config, role)
    names = [*now, *(name for name in before if name not in now)]
    return [
        f"{name}: {_shown(before.get(name))} → {_shown(now.get(name))}"
        for name in names
        if before.get(name) != now.get(name)
    ]


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
