"""The GPUs of hosts, and their memory: asked of each host in a short-lived container, or natively in a process."""

from __future__ import annotations

import json
from importlib import resources

from vllmray.cluster.brief import said_by
from vllmray.cluster.plan import gpu_probe_spec
from vllmray.config.models import ClusterConfig
from vllmray.errors import HostError
from vllmray.hosts.base import Host
from vllmray.model.layouts import HostGpus
from vllmray.reporter import Reporter

STATE_THEM = "State them instead: --gpus 2x80GiB,2x80GiB (a host's count and memory each)."


def gpus_of(host: Host, config: ClusterConfig, reporter: Reporter) -> HostGpus:
    """The GPUs of a host, as a node's image there sees them.

    Raises:
        HostError: it does not answer, lacks the image, or its GPUs can't be told.
    """
    with reporter.step(f"GPUs of {host.address}") as step:
        cdi_devices = host.info().cdi_devices
        if host.image(config.image) is None:
            raise HostError(
                f"{host.address}: there is no image {config.image} to look at its GPUs from",
                hint=f"Pull it there, or name one that is there with --image. {STATE_THEM}",
            )
        script = resources.files("vllmray.hosts").joinpath("node_probe.py").read_text()
        request = json.dumps({"accelerator": config.accelerator})
        lines = said_by(host, gpu_probe_spec(config, cdi_devices, script, request))
        found = HostGpus(host.address, _memory(lines))
        if not found.memory:
            raise HostError(
                f"{host.address}: no {config.accelerator} GPU whose memory could be told",
                details="\n".join(lines[-5:]) or None,
                hint=STATE_THEM,
            )
        step.result(found.summary)
    return found


def _memory(lines: list[str]) -> tuple[int, ...]:
    try:
        return tuple(int(each) for each in json.loads(lines[-1])["gpu_memory"])
    except (IndexError, KeyError, ValueError, TypeError):
        return ()
