"""Results as JSON: a versioned envelope, so that a script can tell what it reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from vllmray.output import plan_results, results
from vllmray.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from _typeshed import DataclassInstance

    from vllmray.cluster.all_hosts import HostState
    from vllmray.cluster.observe.history import Row
    from vllmray.cluster.observe.status import ClusterView
    from vllmray.cluster.run import Outcome
    from vllmray.config.models import ClusterConfig
    from vllmray.errors import VllmrayError
    from vllmray.model.layouts import HostGpus, Layout
    from vllmray.model.model import Model
    from vllmray.output.tables import Access

SCHEMA_VERSION = 1


def envelope(command: str, result: DataclassInstance) -> str:
    """One line of JSON around a command's result (output/results.py)."""
    return _line(command, "data", result)


def error_envelope(command: str, error: VllmrayError, *, log: Path | None = None) -> str:
    """One line of JSON around an error."""
    found = results.Failure(error.exit_code, error.message, error.details, error.hint, str(log) if log else None)
    return _line(command, "error", found)


def _line(command: str, key: str, value: DataclassInstance) -> str:
    return json.dumps({"schema": SCHEMA_VERSION, "vllmray": __version__, "command": command, key: asdict(value)})


def status_data(view: ClusterView) -> results.Status:
    """The status of a cluster, as `status --json` prints it."""
    ray, engine = view.ray, view.engine
    return results.Status(
        cluster=view.cluster,
        host=view.host,
        role=view.role,
        ready=view.ready,
        problem=view.problem,
        since=view.since,
        endpoint=view.endpoint,
        gpus=results.Gpus(view.gpus_wanted, ray.gpus_total if ray else None, ray.gpus_used if ray else None),
        gpu_memory=[results.GpuMemory(**asdict(gpu)) for gpu in view.gpus],
        nodes=[results.Node(**asdict(node)) for node in ray.nodes] if ray else [],
        pending=list(ray.pending) if ray else [],
        engine=results.Engine(**asdict(engine)) if engine else None,
        containers=[
            results.Container(
                name=container.name,
                status=container.status,
                exit_code=container.exit_code,
                restarts=container.restarts,
                image=container.image,
                started_at=container.started_at,
            )
            for container in view.containers
        ],
    )


def cluster_status_data(cluster: str, states: Sequence[HostState]) -> results.Status:
    """The status as the head sees it, with the state of every host of the cluster file."""
    from dataclasses import replace

    from vllmray.cluster.observe.status import ClusterView

    head = next(state for state in states if state.role == "head")
    view = head.view or ClusterView(cluster, head.address, "head", (), {}, None)
    hosts = [
        results.HostStatus(
            name=state.name,
            address=state.address,
            role=state.role,
            reached=state.error is None,
            ready=bool(state.view and state.view.ready),
            state=state.state,
            containers=[each.name for each in state.view.containers] if state.view else [],
        )
        for state in states
    ]
    data = status_data(view)
    return replace(data, problem=data.problem if head.view else head.state, hosts=hosts)


def events_data(cluster: str, host: str, rows: Sequence[Row]) -> results.Events:
    """Rows of a history, oldest first."""
    return results.Events(cluster, host, [results.Event(row.at, row.where, row.kind, row.text) for row in rows])


def up_data(outcome: Outcome, host: str, access: Access | None) -> results.Up:
    """What `up` created or found.

    Args:
        access: of a head.
    """
    config = outcome.config
    header, certificate = (access.header_file, access.certificate_file) if access else (None, None)
    return results.Up(
        cluster=config.cluster,
        host=host,
        role=outcome.role,
        ready=outcome.ready,
        node_ip=config.node_ip,
        head_ip=config.head_ip,
        endpoint=access.url if access else None,
        header_file=str(header) if header else None,
        certificate_file=str(certificate) if certificate else None,
        worker_command=outcome.worker_command,
    )


def plan_data(
    model: Model, hosts: Sequence[HostGpus], layouts: Sequence[Layout], config: ClusterConfig
) -> plan_results.Layouts:
    """A ranking. What is not known of a model is None, and `kv_cache_unknown` and `weights_unknown` say why."""
    from vllmray.cluster.spec.sizes import engine_of

    return plan_results.Layouts(
        model=model.name,
        parameters=None if model.shape.weights_unknown else model.shape.parameters,
        kv_cache_unknown=list(model.shape.kv_unknown),
        weights_unknown=[] if model.knows_weights else list(model.shape.weights_unknown),
        checkpoint_bytes=model.checkpoint_bytes,
        longest_context=model.longest_context,
        max_model_len=engine_of(config, model).max_model_len,
        hosts=[plan_results.PlannedHost(host.name, list(host.memory)) for host in hosts],
        layouts=[_layout_data(layout) for layout in layouts],
    )


def _layout_data(layout: Layout) -> plan_results.Layout:
    return plan_results.Layout(
        tensor_parallel_size=layout.tensor_parallel_size,
        pipeline_parallel_size=layout.pipeline_parallel_size,
        rejected=layout.rejected or None,
        replicas=layout.replicas,
        layer_partition=list(layout.partition),
        sequences=layout.sequences,
        longest_context=layout.longest_context,
        network_bytes_a_token=layout.network_bytes,
        stages=[
            plan_results.Stage(place.host, stage.layers, stage.weights, stage.overhead, stage.room)
            for place, stage in zip(layout.places, layout.stages, strict=False)
        ],
    )
