"""Checks of a host before a node is started there; one short-lived container collects all answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from pydantic import TypeAdapter, ValidationError

from vllmray.cluster.probe.gpus import said_with_gpus
from vllmray.cluster.probe.short_lived import run_to_end
from vllmray.cluster.spec.containers import CACHE, Node
from vllmray.cluster.spec.gpus import stated_gpus
from vllmray.cluster.spec.probes import beside, own_cache_spec, probe_spec
from vllmray.cluster.spec.rdma import Hcas, choose
from vllmray.config.models import ClusterConfig
from vllmray.errors import HostError
from vllmray.hosts.base import ContainerSpec, Host
from vllmray.images.facts import ImageFacts
from vllmray.images.recipe import OLDEST_RAY_TEXT, RAY_PYTHONS, RAY_REQUIREMENT, asks_for_token, lacks_wheel
from vllmray.payload.protocol import HostAnswer

_ANSWER = TypeAdapter(HostAnswer)
# Their builds on PyPI are for CUDA: with a CPU build of torch they fail on import, and transformers with them.
CUDA_COMPANIONS = ("torchvision", "torchaudio", "torchcodec")


@dataclass(frozen=True, slots=True)
class Question:
    """What to check in addition to the image and the GPUs."""

    towards: str | None = None
    """The address that the node must be reachable from; None asks for the default route."""
    ports: Mapping[str, int] | None = None
    connect: tuple[str, int, float] | None = None
    """Address, port and seconds to try."""
    node: str | None = None
    """The node's own container when it runs already: in a network of containers it has the node's address."""


def ask(host: Host, config: ClusterConfig, devices: tuple[str, ...], question: Question) -> HostAnswer:
    """Run the probe on the host and read its answer.

    Args:
        devices: as said_with_gpus takes them.

    Raises:
        HostError: the container did not start (image, GPU runtime), or its answer can't be read.
    """
    request: dict[str, object] = {
        "towards": question.towards,
        "node_ip": config.node_ip,
        "interface": config.network_interface,
        "ports": dict(question.ports or {}),
        "accelerator": config.accelerator,
        "cache": CACHE,
    }
    if question.connect:
        request["connect"] = list(question.connect)

    def spec(devices: tuple[str, ...]) -> ContainerSpec:
        return beside(probe_spec(config, devices, json.dumps(request)), config, question.node)

    lines, given = said_with_gpus(host, config, devices, spec)
    try:
        return replace(_ANSWER.validate_json(lines[-1] if lines else ""), gpu_devices=given)
    except ValidationError as error:
        raise HostError(
            f"{host.address}: the check of the host from image {config.image} failed",
            details="\n".join(lines[-20:]) or "it printed nothing",
            hint="Check that the image runs: docker run --rm --entrypoint python3 IMAGE -V",
        ) from error


def check(host: Host, config: ClusterConfig, found: HostAnswer) -> None:
    """Refuse a host on which a node could not run, before anything is started.

    Raises:
        HostError: no usable address, ports taken or not allowed, no GPU.
    """
    where = host.address
    if found.problem:
        raise HostError(f"{where}: {found.problem}", hint="Name this host's address with --node-ip.")
    if found.forbidden:
        lowest = min(found.forbidden.values())
        raise HostError(
            f"{where}: the nodes' user may not listen on port {_listed(found.forbidden)}",
            hint="Choose ports from 1024 up with the options named; or allow lower ones for every user there: "
            f"sudo sysctl -w net.ipv4.ip_unprivileged_port_start={lowest}",
        )
    if found.taken:
        raise HostError(
            f"{where}: already in use on {found.node_ip or 'this host'}: port {_listed(found.taken)}",
            hint="Stop the program that listens there (ss -ltnp shows it), or choose others with the options named.",
        )
    if config.accelerator != "cpu" and found.gpus == 0:
        raise HostError(
            f"{where}: no {config.accelerator} GPU is visible to {config.image}",
            hint="Check the driver there, and where containers are used the container toolkit, or use "
            "--accelerator cpu.",
        )
    wanted = stated_gpus(config) or 0
    if config.accelerator != "cpu" and found.gpus < wanted:
        raise HostError(
            f"{where}: --gpus {config.gpus} asks for {wanted} {config.accelerator} GPUs, and {config.image} sees "
            f"{found.gpus}",
            hint="Name GPUs that are there (nvidia-smi -L lists them); in a batch job, those in CUDA_VISIBLE_DEVICES.",
        )


def have_cache(host: Host, config: ClusterConfig, found: HostAnswer) -> None:
    """Let the image's user write into the model cache: a folder that Docker has just created belongs to root.

    Raises:
        HostError: it belongs to another user, and was not just created.
    """
    cache = found.cache
    if cache is None or cache.writable:
        return
    if cache.fresh and config.runtime != "native":
        run_to_end(host, own_cache_spec(config, cache.user))
        return
    raise HostError(
        f"{host.address}: the image's user {cache.user} may not write into {config.model_cache_dir}",
        hint=f"On that host: sudo chown -R {cache.user} {config.model_cache_dir}; or another --model-cache-dir.",
    )


def check_software(where: str, config: ClusterConfig, facts: ImageFacts) -> None:
    """Raises HostError unless what nodes run in has Ray and vLLM, and nothing that keeps vLLM from being imported."""
    extra = "cpu" if config.accelerator == "cpu" else "gpu"
    native = config.runtime == "native"
    what = config.image if native else f"image {config.image}"
    install = f"Install it there: pip install 'vllmray[{extra}]'; or name another Python with --python."
    if facts.ray_command is None:
        check_ray_fits(where, config, facts)
        raise HostError(
            f"{where}: {what} has no Ray",
            hint=install
            if native
            else f"Build one that has: FROM that image, RUN pip install '{RAY_REQUIREMENT}'; name it with --image.",
        )
    ray = facts.versions.get("ray")
    if ray is None or not asks_for_token(ray):
        raise HostError(
            f"{where}: {what} has Ray {ray or 'of an unknown version'}, which does not support token authentication: "
            f"{OLDEST_RAY_TEXT} is the oldest that does",
            hint=f"Install a newer one there: pip install '{RAY_REQUIREMENT}'"
            if native
            else f"Build one with a newer Ray: FROM that image, RUN pip install '{RAY_REQUIREMENT}'; name it with "
            "--image.",
        )
    if not facts.vllm:
        raise HostError(
            f"{where}: {what} has no vLLM", hint=install if native else "Name an image that has it with --image."
        )
    versions = facts.versions
    misfits = [name for name in CUDA_COMPANIONS if versions.get(name) and not str(versions[name]).endswith("+cpu")]
    if misfits and str(versions.get("torch")).endswith("+cpu"):
        raise HostError(
            f"{where}: {what} has {', '.join(misfits)} for CUDA and torch for CPUs: vLLM can't be imported",
            hint=f"vLLM works without them: {config.image if native else 'python3'} "
            f"-m pip uninstall --yes {' '.join(misfits)}",
        )


def check_ray_fits(where: str, config: ClusterConfig, facts: ImageFacts) -> None:
    """Raises HostError when Ray is missing and can't be added: there is no Ray for that Python."""
    reason = lacks_wheel(facts.python)
    if facts.ray_command or reason is None:
        return
    native = config.runtime == "native"
    newest = ".".join(map(str, RAY_PYTHONS[1]))
    raise HostError(
        f"{where}: {config.image if native else f'image {config.image}'} has no Ray, and {reason}",
        hint=f"Make an environment with another Python (python{newest} -m venv ENVIRONMENT), and name it with --python."
        if native
        else f"Name an image whose python3 is 3.11 to {newest} with --image, for example one of `vllmray image build`.",
    )


def _listed(ports: Mapping[str, int]) -> str:
    return ", ".join(f"{port} ({_setting(name)})" for name, port in ports.items())


def _setting(name: str) -> str:
    return "--port" if name == "port" else f"--ray-port {name}=…"


def node_of(config: ClusterConfig, found: HostAnswer) -> Node:
    """The plan's view of the host."""
    gpus = stated_gpus(config)
    nccl = hcas_of(config, found).variables if gives_rdma(config) else {}
    return Node(found.node_ip, found.interface, found.gpus if gpus is None else gpus, found.gpu_devices, nccl=nccl)


def gives_rdma(config: ClusterConfig) -> bool:
    """Whether the node can use RDMA devices; a process can always."""
    return config.rdma or config.runtime == "native"


def hcas_of(config: ClusterConfig, found: HostAnswer) -> Hcas:
    """Which RDMA devices of the host the node uses."""
    return choose(found.rdma, ip=found.node_ip, interface=found.interface, stated=config.environment)
