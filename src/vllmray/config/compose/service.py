"""What a service of a Compose file says, and what of it has no place in a cluster file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vllmray.config.compose.command import Command, read_command
from vllmray.config.values import why_unfit

MODELS = ("/root/.cache/huggingface", "/root/.cache/huggingface/hub", "/models", "/root/.cache")
"""Where such a setup mounts its folder of downloaded models."""
UNNEEDED = {
    "restart": "vllmray's containers restart by themselves",
    "network_mode": "vllmray uses the host's network",
    "networks": "vllmray uses the host's network",
    "ipc": "each node has a /dev/shm of its own (shm_size)",
    "privileged": "not needed",
    "cap_add": "not needed",
    "security_opt": "not needed",
    "container_name": "vllmray names its containers",
    "hostname": "not needed",
    "depends_on": "vllmray starts nodes in any order",
    "healthcheck": "vllmray checks readiness itself",
    "logging": "logs are rotated",
    "stdin_open": "not needed",
    "tty": "not needed",
    "init": "vllmray's containers have one",
    "runtime": "GPUs are requested by gpus",
    "ports": "vllmray uses the host's network, with the endpoint's port",
    "expose": "vllmray uses the host's network",
    "ulimits": "memlock and nofile have settings of their own",
    "profiles": "not needed",
    "labels": "vllmray has labels of its own",
    "stop_grace_period": "vllmray waits for Ray's drain",
}
READ = (
    "image",
    "command",
    "entrypoint",
    "volumes",
    "environment",
    "shm_size",
    "deploy",
    "gpus",
    "build",
    "extends",
    "env_file",
)
OF_RAY = ("RAY_HEAD_IP", "RAY_ADDRESS", "VLLM_HOST_IP", "NODE_IP", "NVIDIA_VISIBLE_DEVICES", "HF_HOME", "HF_HUB_CACHE")
"""Variables whose place vllmray takes itself."""


@dataclass(slots=True)
class Service:
    """One service that runs Ray or vLLM."""

    name: str
    command: Command
    settings: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)


def read_service(name: str, raw: Mapping[str, Any], more: Mapping[str, str]) -> Service:
    """A service whose texts have their variables substituted.

    Args:
        more: variables of its env_file entries.
    """
    words = [*_words(raw.get("entrypoint")), *_words(raw.get("command"))]
    found = Service(name, read_command(words))
    found.notices += found.command.notices
    if isinstance(raw.get("image"), str):
        found.settings["image"] = raw["image"]
    if "build" in raw:
        found.notices.append("build: build that image, and name it with image")
    deploy = raw.get("deploy")
    for key in deploy if isinstance(deploy, dict) else ():
        if key != "resources":
            found.notices.append(f"deploy.{key}: there is nothing like it in a cluster file")
    if "extends" in raw:
        found.notices.append(
            "extends: what it takes from another file is not read; merge it first (docker compose config)"
        )
    if raw.get("shm_size"):
        found.settings["shm_size"] = str(raw["shm_size"])
    _gpus(raw, found)
    _volumes(raw.get("volumes"), found)
    _variables({**more, **_environment(raw.get("environment")), **found.command.env}, found)
    for key in raw:
        if key in READ or str(key).startswith("x-"):
            continue
        found.notices.append(f"{key}: {UNNEEDED.get(key, 'there is nothing like it in a cluster file')}")
    return found


def _words(value: Any) -> list[str]:
    """A command as Compose takes it: a list, or a text for a shell."""
    if isinstance(value, str):
        return ["-c", value]
    return [str(each) for each in value] if isinstance(value, list) else []


def _gpus(raw: Mapping[str, Any], found: Service) -> None:
    deploy = raw.get("deploy")
    resources = deploy.get("resources") if isinstance(deploy, dict) else None
    reserved = resources.get("reservations") if isinstance(resources, dict) else None
    devices = reserved.get("devices") if isinstance(reserved, dict) else raw.get("gpus")
    if devices == "all":
        return
    for device in devices if isinstance(devices, list) else ():
        if not isinstance(device, dict):
            continue
        if device.get("device_ids"):
            found.settings["gpus"] = ",".join(str(each) for each in device["device_ids"])
        elif isinstance(device.get("count"), int):
            found.settings["gpus"] = device["count"]


def _volumes(value: Any, found: Service) -> None:
    kept: list[str] = []
    for entry in value if isinstance(value, list) else ():
        source, target, mode = _mount(entry)
        if not target:
            found.notices.append(f"volume {entry}: not read")
        elif target.rstrip("/") in MODELS and source.startswith("/"):
            found.settings["model_cache"] = source
        elif target.rstrip("/") in MODELS:
            found.notices.append(f"volume {source}: a path of its own folder: give model_cache, an absolute path")
        elif target in ("/dev/shm", "/dev/infiniband"):  # noqa: S108  # nosec B108 # a mount point that is named
            found.notices.append(f"volume {target}: not needed")
        elif source.startswith("/"):
            kept.append(f"{source}:{target}" + ("" if "ro" in mode.split(",") else ":rw"))
        else:
            found.notices.append(
                f"volume {source}: a relative path or a named volume; give an absolute path in volumes"
            )
    if kept:
        found.settings["volumes"] = kept


def _mount(entry: Any) -> tuple[str, str, str]:
    """Source, target and mode of the short or the long form; empty texts for another."""
    if isinstance(entry, str):
        source, _, rest = entry.partition(":")
        target, _, mode = rest.partition(":")
        return source, target, mode
    if isinstance(entry, dict) and entry.get("source") and entry.get("target"):
        return str(entry["source"]), str(entry["target"]), "ro" if entry.get("read_only") else "rw"
    return "", "", ""


def _environment(value: Any) -> dict[str, str]:
    if isinstance(value, dict):
        return {str(name): "" if text is None else str(text) for name, text in value.items()}
    pairs = (str(each).partition("=") for each in value) if isinstance(value, list) else ()
    return {name: text for name, _, text in pairs}  # a name alone is the shell's own, and has no value here


def _variables(variables: Mapping[str, str], found: Service) -> None:
    """Those for nodes; of a secret only its name is told."""
    for name, text in variables.items():
        if name == "NVIDIA_VISIBLE_DEVICES" and re.fullmatch(r"\d+(,\d+)*", text):
            found.settings.setdefault("gpus", text)
        elif name in OF_RAY:
            found.notices.append(f"{name}: set by vllmray itself")
        elif why := why_unfit(name):
            found.notices.append(f"{name}: {why}")
        elif text:
            found.env[name] = text
