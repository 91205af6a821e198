"""The short-lived containers that answer questions about a host; pure."""

from __future__ import annotations

from dataclasses import replace

from vllmray.cluster.spec import labels
from vllmray.cluster.spec.containers import (
    CACHE,
    cache_mount,
    container_name,
    listen_capability,
    own_address,
    own_volume,
    volume_mounts,
)
from vllmray.cluster.spec.contents import HOME, PAYLOAD, RAY_TOKEN, SCRIPTS, Secrets
from vllmray.cluster.spec.gpus import device_access
from vllmray.cluster.spec.payload import payload_files
from vllmray.config.models import ClusterConfig
from vllmray.hosts.base import ContainerSpec, Mount
from vllmray.ray import argv as ray_argv


def brief_spec(config: ClusterConfig, argv: tuple[str, ...] = ()) -> ContainerSpec:
    """A short-lived container of the node's image, in the node's network, that answers a question."""
    return ContainerSpec(
        name=container_name(config, labels.PROBE),
        image=config.image,
        argv=argv,
        user=config.user,
        env=config.environment,
        labels=labels.selector(config.cluster, labels.PROBE),
        network=config.network,
        ip=own_address(config.network, config.node_ip),
        cap_add=listen_capability(config),
        read_only=True,
    )


def with_program(spec: ContainerSpec, program: str, *args: str) -> ContainerSpec:
    """A short-lived container that runs a program of payload/, named by its path below that folder."""
    own = (
        ()
        if any(mount.target == SCRIPTS for mount in spec.mounts)
        else (Mount("own", "", SCRIPTS, labels=spec.labels),)
    )
    return replace(
        spec,
        argv=("python3", f"{PAYLOAD}/{program}", *args),
        files=(*payload_files(), *spec.files),
        mounts=(*own, *spec.mounts),
    )


def beside(spec: ContainerSpec, config: ClusterConfig, node: str | None) -> ContainerSpec:
    """The same in the network of the node's container, if that runs: in a network of containers it has the address.

    Args:
        node: name of that container; None when it does not run.
    """
    if node is None or config.network == "host":
        return spec
    return replace(spec, network=f"container:{node}", ip=None)


def ray_client_spec(config: ClusterConfig, secrets: Secrets) -> ContainerSpec:
    """One that connects to Ray."""
    spec = brief_spec(config)
    token = Secrets(ray_token=secrets.ray_token)
    env = ray_argv.authentication(RAY_TOKEN) | config.environment
    return replace(spec, home=HOME, env=env, files=token.of_node(), mounts=(own_volume(config, labels.PROBE),))


def probe_spec(config: ClusterConfig, gpu_devices: tuple[str, ...], request: str) -> ContainerSpec:
    """One that runs payload/probes/host.py, with the node's GPUs and folders; the model cache is made if need be."""
    spec = gpu_probe_spec(config, gpu_devices, request)
    return replace(spec, mounts=(*spec.mounts, cache_mount(config), *volume_mounts(config)))


def gpu_probe_spec(config: ClusterConfig, gpu_devices: tuple[str, ...], request: str) -> ContainerSpec:
    """The same without folders, for a host that is only checked."""
    access = device_access(config, gpu_devices)
    spec = replace(brief_spec(config), mounts=access.mounts)
    return replace(
        with_program(spec, "probes/host.py", request),
        env={**access.env, **config.environment},
        devices=access.devices,
        group_add=access.group_add,
        gpus=access.request,
    )


def own_cache_spec(config: ClusterConfig, user: str) -> ContainerSpec:
    """One that gives the cache folder to a user, as root.

    Args:
        user: UID:GID.
    """
    give = "import os, sys; os.chown(sys.argv[1], *map(int, sys.argv[2].split(':')))"
    spec = brief_spec(config, ("python3", "-c", give, CACHE, user))
    return replace(spec, user="0:0", cap_add=("CHOWN",), mounts=(cache_mount(config),))
