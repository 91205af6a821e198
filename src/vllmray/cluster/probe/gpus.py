"""The GPUs of hosts, and their memory: asked of each host in a short-lived container, or natively in a process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

from vllmray.cluster.probe.cards import cards_in, files_in
from vllmray.cluster.probe.short_lived import run_to_end
from vllmray.cluster.spec import unified
from vllmray.cluster.spec.gpus import AMD_CONTROL, RENDER_FILE
from vllmray.cluster.spec.probes import brief_spec, gpu_probe_spec, with_program
from vllmray.config.models import ClusterConfig
from vllmray.errors import HostError, NoGpuRuntimeError
from vllmray.hosts.base import ContainerSpec, Host, Mount
from vllmray.model.layouts import HostGpus
from vllmray.reporter import Reporter

DEV = "/vllmray/dev"
"""Where the host's /dev is mounted in the container that lists its files."""
STATE_THEM = "State them instead: --gpus 2x80GiB,2x80GiB (a host's count and memory each)."


def gpus_of(host: Host, config: ClusterConfig, reporter: Reporter) -> HostGpus:
    """The GPUs of a host, as a node's image there sees them.

    Raises:
        HostError: it does not answer, lacks the image, or its GPUs can't be read.
    """
    with reporter.step(f"GPUs of {host.address}") as step:
        if host.image(config.image) is None:
            raise HostError(
                f"{host.address}: there is no image {config.image}, which is needed to inspect its GPUs",
                hint=f"Pull it there, or name one that is there with --image. {STATE_THEM}",
            )
        request = json.dumps({"accelerator": config.accelerator})
        lines, _ = said_with_gpus(
            host, config, host.info().cdi_devices, lambda devices: gpu_probe_spec(config, devices, request)
        )
        cards = cards_in(lines)
        share = unified.share_left(cards)
        found = HostGpus(host.address, tuple(card.total for card in cards), share)
        if not found.memory:
            raise HostError(
                f"{host.address}: no {config.accelerator} GPU whose memory could be read",
                details="\n".join(lines[-5:]) or None,
                hint=STATE_THEM,
            )
        config = unified.with_share(config, share)
        shared = unified.words(cards, config)
        step.result(f"{found.summary}; {shared}" if shared else found.summary)
    if problem := unified.refused(cards, config) or unified.too_large(cards, config):
        reporter.warning(f"{host.address}: {problem}")
    return found


def said_with_gpus(
    host: Host, config: ClusterConfig, devices: tuple[str, ...], spec: Callable[[tuple[str, ...]], ContainerSpec]
) -> tuple[list[str], tuple[str, ...]]:
    """What a short-lived container with the host's GPUs prints, and how the host provides them.

    NVIDIA GPUs by CDI where the daemon lists CDI devices, else by the NVIDIA runtime, which no daemon reports before it
    is asked for; without either, by their device files: the driver's libraries are then in the image, or in mounted
    folders. AMD GPUs by their device files.

    Args:
        devices: those that the daemon lists, or what an earlier call returned.
        spec: the container, by what gpus.device_access takes.

    Raises:
        HostError: it could not be started, or the host has no way to provide GPUs to containers.
    """
    if config.accelerator == "amd" and config.runtime != "native" and AMD_CONTROL not in devices:
        devices = _device_files(host, config)
        if AMD_CONTROL not in devices or not any(RENDER_FILE.fullmatch(device) for device in devices):
            raise HostError(
                f"{host.address}: no AMD GPU: there is no {AMD_CONTROL}, or no render node of an AMD card",
                hint="Check that its amdgpu driver is loaded (ls /dev/kfd /dev/dri), or name another --accelerator.",
            )
    try:
        return run_to_end(host, spec(devices)), devices
    except NoGpuRuntimeError:
        devices = _device_files(host, config)
        if not devices:
            raise
        return run_to_end(host, spec(devices)), devices


def _device_files(host: Host, config: ClusterConfig) -> tuple[str, ...]:
    """The host's GPU device files, and their groups, from a container that has the host's /dev mounted."""
    request = json.dumps({"files": DEV, "accelerator": config.accelerator})
    spec = replace(brief_spec(config), mounts=(Mount("bind", "/dev", DEV, read_only=True),))
    lines = run_to_end(host, with_program(spec, "probes/host.py", request))
    return files_in(lines)
