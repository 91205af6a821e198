"""Results as JSON: a versioned envelope, so that a script can tell what it reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from vllmray.version import __version__

if TYPE_CHECKING:
    from vllmray.cluster.observe.history import Row
    from vllmray.cluster.observe.status import ClusterView
    from vllmray.config.models import ClusterConfig
    from vllmray.errors import VllmrayError
    from vllmray.model.layouts import HostGpus, Layout
    from vllmray.model.model import Model

SCHEMA_VERSION = 1


def envelope(command: str, data: dict[str, Any]) -> str:
    """One line of JSON around a command's result."""
    return json.dumps({"schema": SCHEMA_VERSION, "vllmray": __version__, "command": command, "data": data})


def error_envelope(command: str, error: VllmrayError) -> str:
    """The same around an error, in the place of a result; the code is the exit code."""
    said = {"code": error.exit_code, "message": error.message, "details": error.details, "hint": error.hint}
    return json.dumps({"schema": SCHEMA_VERSION, "vllmray": __version__, "command": command, "error": said})


def status_data(view: ClusterView) -> dict[str, Any]:
    """A cluster's view in plain values. GPUs are counts, of this host with bytes of memory; times are unix seconds."""
    ray = view.ray
    return {
        "cluster": view.cluster,
        "host": view.host,
        "role": view.role,
        "ready": view.ready,
        "problem": view.problem,
        "since": view.since,
        "endpoint": view.endpoint,
        "gpus": {
            "wanted": view.gpus_wanted,
            "total": ray.gpus_total if ray else None,
            "used": ray.gpus_used if ray else None,
        },
        "gpu_memory": [asdict(gpu) for gpu in view.gpus],
        "nodes": [asdict(node) for node in ray.nodes] if ray else [],
        "pending": list(ray.pending) if ray else [],
        "engine": asdict(view.engine) if view.engine else None,
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


def events_data(cluster: str, host: str, rows: Sequence[Row]) -> dict[str, Any]:
    """Rows of a history in plain values, oldest first; times are unix seconds."""
    events = [{"at": row.at, "where": row.where, "kind": row.kind, "text": row.text} for row in rows]
    return {"cluster": cluster, "host": host, "events": events}


def plan_data(
    model: Model, hosts: Sequence[HostGpus], layouts: Sequence[Layout], config: ClusterConfig
) -> dict[str, Any]:
    """A ranking in plain values. Sizes are bytes, of each GPU (`room` is what is left for
    sequences), lengths tokens; `rejected` is null for a layout that fits. What is not known of a model is null, and
    `kv_cache_unknown` and `weights_unknown` say why.
    """
    from vllmray.cluster.spec.sizes import engine_of

    return {
        "model": model.name,
        "parameters": None if model.shape.weights_unknown else model.shape.parameters,
        "kv_cache_unknown": list(model.shape.kv_unknown),
        "weights_unknown": [] if model.knows_weights else list(model.shape.weights_unknown),
        "checkpoint_bytes": model.checkpoint_bytes,
        "longest_context": model.longest_context,
        "max_model_len": engine_of(config, model).max_model_len,
        "hosts": [{"name": host.name, "gpus": list(host.memory)} for host in hosts],
        "layouts": [
            {
                "tensor_parallel_size": layout.tensor_parallel_size,
                "pipeline_parallel_size": layout.pipeline_parallel_size,
                "rejected": layout.rejected or None,
                "replicas": layout.replicas,
                "layer_partition": list(layout.partition),
                "sequences": layout.sequences,
                "longest_context": layout.longest_context,
                "network_bytes_a_token": layout.network_bytes,
                "stages": [
                    {
                        "host": place.host,
                        "layers": stage.layers,
                        "weights": stage.weights,
                        "beside": stage.beside,
                        "room": stage.room,
                    }
                    for place, stage in zip(layout.places, layout.stages, strict=False)
                ],
            }
            for layout in layouts
        ],
    }
