"""Results as JSON: a versioned envelope, so that a script can tell what it reads."""

from __future__ import annotations

import json
from typing import Any

from vllmray import __version__
from vllmray.cluster.status import ClusterView

SCHEMA_VERSION = 1


def envelope(command: str, data: dict[str, Any]) -> str:
    """One line of JSON around a command's result."""
    return json.dumps({"schema": SCHEMA_VERSION, "vllmray": __version__, "command": command, "data": data})


def status_data(view: ClusterView) -> dict[str, Any]:
    """A cluster's view in plain values. GPUs are counts; times are unix seconds."""
    ray = view.ray
    return {
        "cluster": view.cluster,
        "host": view.host,
        "role": view.role,
        "ready": view.ready,
        "problem": view.problem,
        "endpoint": view.endpoint,
        "gpus": {
            "wanted": view.gpus_wanted,
            "total": ray.gpus_total if ray else None,
            "used": ray.gpus_used if ray else None,
        },
        "nodes": [node.model_dump() for node in ray.nodes] if ray else [],
        "pending": list(ray.pending) if ray else [],
        "engine": view.engine.model_dump() if view.engine else None,
        "containers": [
            {
                "name": container.name,
                "status": container.status,
                "exit_code": container.exit_code,
                "restarts": container.restarts,
                "image": container.image,
                "started_at": container.started_at,
            }
            for container in view.containers
        ],
    }
