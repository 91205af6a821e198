"""Looking at a host before a node is started there: one short-lived container answers everything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

from pydantic import BaseModel, ConfigDict, ValidationError

from vllmray.cluster import labels
from vllmray.cluster.gpus import stated_gpus
from vllmray.cluster.plan import Node, Scripts, probe_spec
from vllmray.config.models import ClusterConfig
from vllmray.errors import HostError
from vllmray.hosts.base import Host


class NodeProbe(BaseModel):
    """What hosts/node_probe.py answers."""

    model_config = ConfigDict(frozen=True)

    node_ip: str = ""
    interface: str = ""
    problem: str | None = None
    taken: Mapping[str, int] = {}
    software: Mapping[str, str | None] = {}
    gpus: int = 0
    connect: str | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """What to look at besides the image and the GPUs."""

    towards: str | None = None
    """The address that the node must be reachable from; None asks for the default route."""
    ports: Mapping[str, int] | None = None
    connect: tuple[str, int, float] | None = None
    """Address, port and seconds to try."""


def scripts() -> Scripts:
    """The programs that run inside containers, from this package."""
    return Scripts(
        watch=resources.files("vllmray.ray").joinpath("watch.py").read_bytes(),
        launch=resources.files("vllmray.engine").joinpath("launch.py").read_bytes(),
    )


def ask(host: Host, config: ClusterConfig, cdi_devices: tuple[str, ...], question: Question) -> NodeProbe:
    """Run the probe on the host and read its answer.

    Raises:
        HostError: the container did not start (image, GPU runtime), or its answer is none.
    """
    request: dict[str, object] = {
        "towards": question.towards,
        "node_ip": config.node_ip,
        "interface": config.network_interface,
        "ports": dict(question.ports or {}),
        "accelerator": config.accelerator,
    }
    if question.connect:
        request["connect"] = list(question.connect)
    script = resources.files("vllmray.hosts").joinpath("node_probe.py").read_text()
    spec = probe_spec(config, cdi_devices, script, json.dumps(request))
    for left in host.containers(labels.selector(config.cluster, labels.PROBE)):
        host.stop_and_remove(left.id, timeout=0)
    container = host.create_and_start(spec)
    try:
        lines = list(host.logs(container.id, follow=True))
    finally:
        host.stop_and_remove(container.id, timeout=0)
    try:
        return NodeProbe.model_validate_json(lines[-1] if lines else "")
    except ValidationError as error:
        raise HostError(
            f"{host.address}: the look at the host from image {config.image} failed",
            details="\n".join(lines[-20:]) or "it printed nothing",
            hint="Check that the image runs: docker run --rm --entrypoint python3 IMAGE -V",
        ) from error


def check(host: Host, config: ClusterConfig, found: NodeProbe) -> None:
    """Refuse what a node could not live with, before anything of it is started.

    Raises:
        HostError: no usable address, ports taken, an image without Ray, no GPU.
    """
    where = host.address
    if found.problem:
        raise HostError(f"{where}: {found.problem}", hint="Name this host's address with --node-ip.")
    if found.software.get("ray_command") is None:
        raise HostError(
            f"{where}: image {config.image} has no Ray",
            hint="Build one that has: FROM that image, RUN pip install 'ray[default]==2.60.0'; name it with --image.",
        )
    if found.taken:
        listed = ", ".join(f"{port} ({_setting(name)})" for name, port in found.taken.items())
        raise HostError(
            f"{where}: in use on {found.node_ip or 'this host'} already: port {listed}",
            hint="Stop what listens there (ss -ltnp shows it), or choose others with the options named.",
        )
    if config.accelerator == "cpu" and found.software.get("vllmray") is None:
        raise HostError(
            f"{where}: image {config.image} has no vllmray, which --accelerator cpu needs inside",
            hint="Add it to the image: RUN pip install --no-deps vllmray",
        )
    if config.accelerator != "cpu" and found.gpus == 0:
        raise HostError(
            f"{where}: no {config.accelerator} GPU is visible in a container of {config.image}",
            hint="Check the driver and the container toolkit on that host, or use --accelerator cpu.",
        )


def _setting(name: str) -> str:
    return "--port" if name == "port" else f"--ray-port {name}=…"


def node_of(config: ClusterConfig, found: NodeProbe, cdi_devices: tuple[str, ...]) -> Node:
    """The plan's view of the host."""
    gpus = stated_gpus(config)
    return Node(found.node_ip, found.interface, found.gpus if gpus is None else gpus, cdi_devices)
