"""What a daemon says of itself, of an image and of a container, as values; pure.

The shapes are the Engine API's (GET /info, /version, /images/NAME/json, /containers/ID/json), which Podman has too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from vllmray.hosts.base import NEVER, Container
from vllmray.hosts.docker.podman import NAME, boot_command, is_podman
from vllmray.hosts.facts import HostInfo, Image
from vllmray.images.architecture import architecture_of

CONFIG = ("Cmd", "Entrypoint", "Env", "User", "WorkingDir")
"""What an image says of how its containers run."""


def host_info(info: Mapping[str, Any], version: Mapping[str, Any]) -> HostInfo:
    """The daemon, by its name and version, and its machine."""
    devices = info.get("DiscoveredDevices") or []
    podman, rootless = is_podman(version), "name=rootless" in (info.get("SecurityOptions") or [])
    return HostInfo(
        runtime=f"{NAME if podman else 'Docker'} {info['ServerVersion']}",
        cpus=info["NCPU"],
        memory=info["MemTotal"],
        architecture=architecture_of(info.get("Architecture") or ""),
        rootless=rootless,
        host_network=podman or not rootless,
        boot_command=boot_command(rootless=rootless) if podman else None,
        id=str(info.get("ID") or ""),
        cdi_devices=tuple(device["ID"] for device in devices if device.get("Source") == "cdi"),
    )


def image_of(found: Mapping[str, Any]) -> Image:
    """An image. Its id differs between image stores; its contents do not.

    The id is the digest of its configuration with Docker's own stores and Podman, and of its manifest with containerd's
    (Docker's documentation, "containerd image store"; seen of one `docker save` in docker 20.10, 28.5 and podman 5.8).
    """
    config = found.get("Config") or {}
    layers = (found.get("RootFS") or {}).get("Layers") or []
    contents = [found.get("Architecture"), layers, [config.get(name) or None for name in CONFIG]]
    return Image(
        id=found["Id"],
        size=found["Size"],
        user=config.get("User") or "",
        entrypoint=tuple(config.get("Entrypoint") or ()),
        digests=tuple(found.get("RepoDigests") or ()),
        architecture=found.get("Architecture") or "",
        contents=f"sha256:{hashlib.sha256(json.dumps(contents).encode()).hexdigest()}",
    )


def container_of(found: Mapping[str, Any]) -> Container:
    """A container."""
    state = found["State"]
    return Container(
        id=found["Id"],
        name=found["Name"].removeprefix("/"),
        status=state["Status"],
        labels=found["Config"]["Labels"] or {},
        image=found["Config"]["Image"].removeprefix("localhost/"),  # Podman's, for an image that is in no registry
        exit_code=state["ExitCode"],
        restarts=found["RestartCount"],
        error=state["Error"],
        started_at=state["StartedAt"] or NEVER,
        ended_at=state["FinishedAt"] or NEVER,
    )
