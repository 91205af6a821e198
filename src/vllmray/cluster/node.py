"""Looking at a host before a node is started there: one short-lived container answers everything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from vllmray.cluster.brief import said_by
from vllmray.cluster.contents import GUARD, LAUNCH, NODE, SITE, START_HEAD, WATCH, Contents
from vllmray.cluster.gpu_cards import Card
from vllmray.cluster.gpus import stated_gpus
from vllmray.cluster.gpus_at_hand import said_with_gpus
from vllmray.cluster.plan import CACHE, Node, beside, own_cache_spec, probe_spec
from vllmray.config.models import ClusterConfig
from vllmray.errors import HostError
from vllmray.hosts.base import ContainerSpec, Host
from vllmray.hosts.node_program import node_program
from vllmray.images.facts import ImageFacts
from vllmray.images.recipe import OLDEST_RAY_TEXT, RAY_REQUIREMENT, asks_for_token


class CacheProbe(BaseModel):
    """The model cache as the image's user finds it."""

    model_config = ConfigDict(frozen=True)

    writable: bool
    user: str
    """UID:GID of the image's user."""
    fresh: bool
    """Empty and root's: made by the daemon a moment ago."""


class NodeProbe(BaseModel):
    """What hosts/node_probe.py answers."""

    model_config = ConfigDict(frozen=True)

    node_ip: str = ""
    interface: str = ""
    problem: str | None = None
    taken: Mapping[str, int] = {}
    forbidden: Mapping[str, int] = {}
    """Ports that the nodes' user may not listen on."""
    gpus: int = 0
    cards: tuple[Card, ...] = ()
    """The GPUs; empty when their memory could not be told."""
    connect: str | None = None
    cache: CacheProbe | None = None
    gpu_devices: tuple[str, ...] = ()
    """How this host gives GPUs, as gpus.device_access takes it."""

    @property
    def gpu_memory(self) -> tuple[int, ...]:
        """Bytes of each GPU; empty when that could not be told."""
        return tuple(card.size for card in self.cards)


PACKAGE = Path(str(resources.files("vllmray")))
PROGRAMS = {
    WATCH: PACKAGE / "ray/watch.py",
    NODE: PACKAGE / "ray/node.py",
    START_HEAD: PACKAGE / "ray/start_head.py",
    LAUNCH: PACKAGE / "engine/launch.py",
    GUARD: PACKAGE / "engine/guard.py",
}
MODULES = (
    "__init__",
    "journal",
    *(f"hosts/{name}" for name in ("__init__", "gpu_probe")),
    *(
        f"engine/{name}"
        for name in ("__init__", "closed", "door", "gate", "pulse", "remains", "room", "serve", "server")
    ),
)
"""Of this package, what the programs import or start; the standard library is all that these need."""
PLUGIN_MODULES = ("cpu_platform", "cpu_slots", "cpu_communicator")
# Their builds on PyPI are for CUDA: beside a CPU build of torch they fail on import, and transformers with them.
CUDA_COMPANIONS = ("torchvision", "torchaudio", "torchcodec")


@dataclass(frozen=True, slots=True)
class Question:
    """What to look at besides the image and the GPUs."""

    towards: str | None = None
    """The address that the node must be reachable from; None asks for the default route."""
    ports: Mapping[str, int] | None = None
    connect: tuple[str, int, float] | None = None
    """Address, port and seconds to try."""
    node: str | None = None
    """The node's own container when it runs already: in a network of its own, its address is taken then."""


def contents() -> Contents:
    """The programs that run inside containers, from this package, without secrets."""
    return Contents(
        watch=PROGRAMS[WATCH].read_bytes(),
        launch=PROGRAMS[LAUNCH].read_bytes(),
        guard=PROGRAMS[GUARD].read_bytes(),
        node=PROGRAMS[NODE].read_bytes(),
        start_head=PROGRAMS[START_HEAD].read_bytes(),
        modules={name: path.read_bytes() for name, path in module_sources().items()},
        plugin={name: path.read_bytes() for name, path in plugin_sources().items()},
    )


def sources() -> dict[str, Path]:
    """Where on this machine the files of the containers lie, by their path there."""
    return PROGRAMS | {f"{SITE}/{name}": path for name, path in (module_sources() | plugin_sources()).items()}


def module_sources() -> dict[str, Path]:
    """The files of this package that the programs in containers need, by their path below a Python path."""
    return {f"vllmray/{name}.py": PACKAGE / f"{name}.py" for name in MODULES}


def plugin_sources() -> dict[str, Path]:
    """The files of the vLLM plugin of accelerator `cpu`, by their path below a Python path.

    With what makes them an installed distribution, since vLLM finds plugins by entry point (Python packaging
    specifications, "Entry points"); so no image needs vllmray inside.
    """
    names = tuple(f"engine/{name}.py" for name in PLUGIN_MODULES)
    about = [file for file in metadata.files("vllmray") or () if file.name in ("METADATA", "entry_points.txt")]
    return {f"vllmray/{name}": PACKAGE / name for name in names} | {
        str(file): Path(str(file.locate())) for file in about
    }


def ask(host: Host, config: ClusterConfig, devices: tuple[str, ...], question: Question) -> NodeProbe:
    """Run the probe on the host and read its answer.

    Args:
        devices: as said_with_gpus takes them.

    Raises:
        HostError: the container did not start (image, GPU runtime), or its answer is none.
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
    script = node_program()

    def spec(devices: tuple[str, ...]) -> ContainerSpec:
        return beside(probe_spec(config, devices, script, json.dumps(request)), config, question.node)

    lines, given = said_with_gpus(host, config, devices, spec)
    try:
        answer = NodeProbe.model_validate_json(lines[-1] if lines else "")
        return answer.model_copy(update={"gpu_devices": given})
    except ValidationError as error:
        raise HostError(
            f"{host.address}: the look at the host from image {config.image} failed",
            details="\n".join(lines[-20:]) or "it printed nothing",
            hint="Check that the image runs: docker run --rm --entrypoint python3 IMAGE -V",
        ) from error


def check(host: Host, config: ClusterConfig, found: NodeProbe) -> None:
    """Refuse what a node could not live with, before anything of it is started.

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
            hint="Choose ports from 1024 on with the options named; or let every user there have lower ones: "
            f"sudo sysctl -w net.ipv4.ip_unprivileged_port_start={lowest}",
        )
    if found.taken:
        raise HostError(
            f"{where}: in use on {found.node_ip or 'this host'} already: port {_listed(found.taken)}",
            hint="Stop what listens there (ss -ltnp shows it), or choose others with the options named.",
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
            hint="Name GPUs that are there (nvidia-smi -L lists them); of a batch job, those in CUDA_VISIBLE_DEVICES.",
        )


def have_cache(host: Host, config: ClusterConfig, found: NodeProbe) -> None:
    """Let the image's user write into the model cache: a folder that Docker has just made is root's.

    Raises:
        HostError: it is another's, or has something in it already.
    """
    cache = found.cache
    if cache is None or cache.writable:
        return
    if cache.fresh and config.runtime != "native":
        said_by(host, own_cache_spec(config, cache.user))
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
        raise HostError(
            f"{where}: {what} has no Ray",
            hint=install
            if native
            else f"Build one that has: FROM that image, RUN pip install '{RAY_REQUIREMENT}'; name it with --image.",
        )
    ray = facts.versions.get("ray")
    if ray is None or not asks_for_token(ray):
        raise HostError(
            f"{where}: {what} has Ray {ray or 'of a version that it does not tell'}, which asks nobody for a token: "
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
            f"{where}: {what} has {', '.join(misfits)} for CUDA beside torch for CPUs: vLLM can't be imported",
            hint=f"vLLM does without them: {config.image if native else 'python3'} "
            f"-m pip uninstall --yes {' '.join(misfits)}",
        )


def _listed(ports: Mapping[str, int]) -> str:
    return ", ".join(f"{port} ({_setting(name)})" for name, port in ports.items())


def _setting(name: str) -> str:
    return "--port" if name == "port" else f"--ray-port {name}=…"


def node_of(config: ClusterConfig, found: NodeProbe) -> Node:
    """The plan's view of the host."""
    gpus = stated_gpus(config)
    return Node(found.node_ip, found.interface, found.gpus if gpus is None else gpus, found.gpu_devices)
