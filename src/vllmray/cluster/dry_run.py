"""`up --dry-run`: the plan as the command lines that would do the same, with nothing started."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vllmray.cluster.spec.commands import worker_command
from vllmray.cluster.spec.containers import Node, engine_spec, head_spec, worker_spec
from vllmray.cluster.spec.contents import Secrets
from vllmray.cluster.spec.gpus import stated_gpus
from vllmray.cluster.spec.payload import contents, sources
from vllmray.config.models import ClusterConfig
from vllmray.config.resolved import ResolvedConfig
from vllmray.hosts.run_line import process_line, run_line
from vllmray.payload.probes.host import choose_address

Paths = Mapping[str, Path]

PLACEHOLDERS = {
    "NODE_IP": "the address of this host that the others reach (--node-ip)",
    "INTERFACE": "the interface that holds it (--network-interface)",
    "GPUS": "the number of GPUs of this host (--gpus)",
}


@dataclass(frozen=True, slots=True)
class Preview:
    """What would be started."""

    config: ResolvedConfig
    node: Node
    containers: tuple[str, ...]
    """Their names."""
    commands: str
    """The shell commands that do the same; secrets that do not exist yet are created first."""


def preview(
    config: ClusterConfig,
    role: str,
    address: str | None,
    secrets: Callable[[ClusterConfig], tuple[Secrets, Paths, Sequence[str]]],
) -> Preview:
    """The plan; words in capitals stand for what only a check of a remote host can determine.

    Args:
        secrets: returns the cluster's; the paths of those that are files on this machine, by their path in a container;
            and the shell lines that create those that do not exist yet.
    """
    if role == "worker":
        config = config.with_loopback_ports()
    node = _node(config, address)
    resolved = ResolvedConfig.of(config, node_ip=node.ip, interface=node.interface, head_ip=config.head_ip or node.ip)
    kept, places, making = secrets(resolved)
    programs = contents().with_secrets(kept)
    specs = (
        [head_spec(resolved, node, programs), engine_spec(resolved, node, programs)]
        if role == "head"
        else [worker_spec(resolved, node, programs)]
    )
    line = process_line if config.runtime == "native" else run_line
    text = "\n\n".join(
        line(spec, {path: str(place) for path, place in {**sources(), **places}.items()}) for spec in specs
    )
    unknown = [
        f"# {word}: {meaning}" for word, meaning in PLACEHOLDERS.items() if word in (node.ip, node.interface, node.gpus)
    ]
    closing = [f"# on each other host: {worker_command(resolved)}"] if role == "head" else []
    return Preview(resolved, node, tuple(spec.name for spec in specs), "\n".join([*unknown, *making, text, *closing]))


def _node(config: ClusterConfig, address: str | None) -> Node:
    """What can be known without starting anything: what is stated, and this machine's own network."""
    here = address is None or address.startswith("unix://")
    towards = config.head_ip if config.head_ip != config.node_ip else None
    found = choose_address(towards, config.node_ip, config.network_interface) if here else {}
    return Node(
        ip=config.node_ip or found.get("node_ip") or "NODE_IP",
        interface=config.network_interface or found.get("interface") or "INTERFACE",
        gpus=stated_gpus(config) or "GPUS",
    )
