"""What `up --dry-run` prints: a summary of the plan."""

from __future__ import annotations

from collections.abc import Collection

from vllmray.cluster.dry_run import Preview
from vllmray.cluster.spec.commands import worker_command
from vllmray.cluster.spec.labels import HEAD

COMMANDS = "--dry-run=commands"
WIDTH = 12


def summary(plan: Preview, role: str, host: str | None, missing: Collection[str]) -> dict[str, str]:
    """The plan in about ten lines, by their titles.

    Args:
        host: the Docker host; None for this machine.
        missing: names of the secrets that `up` would generate.
    """
    config, node = plan.config, plan.node
    native = config.runtime == "native"
    lines = {
        "cluster": f"{config.cluster}, {role} on {host or 'this machine'}",
        "runtime": f"native, {config.image}" if native else f"docker, image {config.image}",
        "processes" if native else "containers": ", ".join(plan.containers),
        "node": f"{node.ip} on {node.interface}, {_counted(node.gpus)} ({config.accelerator})",
    }
    if role == HEAD:
        lines |= _of_head(plan)
    else:
        lines["head"] = f"{config.head_ip}:{config.ray_ports.gcs}"
    if missing:
        lines["secrets"] = f"to be generated: {', '.join(sorted(missing))}"
    if role == HEAD:
        lines["workers"] = worker_command(config)
    return lines | {"commands": f"printed with {COMMANDS}"}


def _of_head(plan: Preview) -> dict[str, str]:
    config = plan.config
    sizes = (
        f"tensor_parallel_size {config.tensor_parallel_size}, pipeline_parallel_size {config.pipeline_parallel_size}"
    )
    length = "a context length chosen from memory" if config.max_model_len < 0 else f"{config.max_model_len} tokens"
    scheme, key = "https" if config.serves_https else "http", "no authentication" if config.no_api_key else "API key"
    return {
        "model": f"{config.model}, {length}",
        "layout": f"{sizes}: {_counted(config.world_size)}",
        "endpoint": f"{scheme}://{plan.node.ip}:{config.port}/v1, {key}",
    }


def _counted(gpus: int | str) -> str:
    """The number of GPUs in words; a placeholder where only a check of the host can determine it."""
    return f"{gpus} GPU{'' if gpus == 1 else 's'}" if isinstance(gpus, int) else "GPUs not known yet"


def summary_text(lines: dict[str, str]) -> str:
    """The summary as text."""
    shown = [f"{title:<{WIDTH}}{words}" for title, words in lines.items()]
    return "\n".join(["dry run: nothing was started, nothing was written", *shown])
