"""What the command of a Compose service says: Ray's role, the head's address, vLLM's flags."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any

from vllmray.config.models import Role
from vllmray.engine.argv import flag_conflicts
from vllmray.engine.flags import read_flags

SETTINGS = {
    "--model": "model",
    "--tensor-parallel-size": "tensor_parallel_size",
    "--pipeline-parallel-size": "pipeline_parallel_size",
    "--max-model-len": "max_model_len",
    "--port": "port",
}
"""vLLM's flags that are settings of vllmray's own."""
OWN = {
    "--distributed-executor-backend": "the executor is Ray",
    "--host": "the endpoint listens on the head's address",
    "--api-key": "a secret: put VLLM_API_KEY into .env",
    "--download-dir": "models are in model_cache",
}
"""Flags that are not needed, and why."""
_BREAKS = re.compile(r"&&|\|\||[;&|\n]")
_SERVER = re.compile(r"vllm\.entrypoints\.openai\.api_server|\bvllm\s+serve\b")


_ASSIGNED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_OF_RAY = ("--head", "--address", "--node-ip-address", "--port", "--block")
"""Flags of `ray start` that are read, or that vllmray gives itself."""
_WORDS_OF_SHELLS = ("exec", "then", "do", "else")
_SILENT = ("set", "echo", "cd", "true", "wait", "fi", "done", "if", "while", "until", "[", "trap", "exit")
"""Steps of a shell line that do nothing to a node."""
GCS_PORT = 6379


@dataclass(slots=True)
class Command:
    """What was read of one command."""

    role: Role | None = None
    """None where it does not start Ray."""
    serves: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    vllm_args: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    """Variables before a command, or exported."""
    notices: list[str] = field(default_factory=list)


def read_command(words: Sequence[str]) -> Command:
    """Read a service's entrypoint and command together, shell lines inside them too.

    What is not understood is named by its first word alone: the rest may have a secret.
    """
    found = Command()
    for part in _parts(words):
        part = _without_variables(part, found)  # noqa: PLW2901  # the same command, its variables read
        program = PurePosixPath(part[0]).name if part else ""
        if program == "ray" or "ray.scripts.scripts" in part:
            _ray(part, found)
        elif _SERVER.search(" ".join(part)):
            found.serves = True
            _vllm(part, found)
        elif program == "sleep":
            found.notices.append(f"{' '.join(part[:2])}: not needed, the engine waits for its GPUs")
        elif part and program not in _SILENT:
            found.notices.append(f"`{part[0]}` in the command: neither Ray nor vLLM; an image of yours can do it")
    return found


def _without_variables(words: list[str], found: Command) -> list[str]:
    """A command without NAME=VALUE in front of it, or as what it exports."""
    words = words[1:] if words[:1] in ([each] for each in _WORDS_OF_SHELLS) else words
    at = 1 if words[:1] == ["export"] else 0
    while at < len(words) and (match := _ASSIGNED.fullmatch(words[at])):
        found.env[match[1]] = match[2]
        at += 1
    return words[at:]


def _parts(words: Sequence[str]) -> list[list[str]]:
    """The commands in it: of `bash -c TEXT` those in the text, and so on."""
    text = next((word for before, word in pairwise(words) if before in ("-c", "-lc", "-ec")), None)
    if text is None:
        return [list(words)] if words else []
    lines = _BREAKS.split(text.replace("\\\n", " "))
    return [part for line in lines if (inner := _words(line)) for part in _parts(inner)]


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line, comments=True)
    except ValueError:  # a quote that another part closes
        return line.split()


def _ray(words: list[str], found: Command) -> None:
    if "start" not in words:
        return
    given = {name.partition("=")[0]: name.partition("=")[2] for name in words if name.startswith("--")}
    valued = ("--address", "--node-ip-address", "--port")
    given |= {name: word for name, word in pairwise(words) if name in valued and not word.startswith("-")}
    if given.get("--node-ip-address"):
        found.settings["node_ip"] = given["--node-ip-address"]
    if "--head" in given:
        found.role, port = "head", given.get("--port", "")
    elif "--address" in given:
        address, _, port = given["--address"].rpartition(":")
        found.role, found.settings["head_ip"] = "worker", address or given["--address"]
    else:
        return
    if port.isdigit() and int(port) != GCS_PORT:
        found.settings["ray_ports"] = {"gcs": int(port)}
    for flag in given:
        if flag not in _OF_RAY:
            found.notices.append(
                f"ray start {flag}: vllmray gives Ray's flags itself (ray_ports, gpus, object_store_memory)"
            )


def _vllm(words: list[str], found: Command) -> None:
    at = next((number for number, word in enumerate(words) if word == "serve" or word.endswith("api_server")), 0)
    args = words[at + 1 :]
    if words[at] == "serve" and args and not args[0].startswith("-"):
        found.settings["model"] = args.pop(0)
    read = read_flags(args)
    for given in read.flags:
        name = given.names[0] if len(given.names) == 1 else given.typed
        if name in SETTINGS and given.values:
            found.settings[SETTINGS[name]] = given.values[0]
        elif name in OWN:
            found.notices.append(f"{given.typed}: {OWN[name]}")
        elif problems := flag_conflicts(args[given.begin : given.end]):
            found.notices.append(f"{given.typed}: {'; '.join(problems)}")
        else:
            found.vllm_args += args[given.begin : given.end]
    if read.strays:
        found.notices.append(f"{len(read.strays)} words of the server's command are no flags of vLLM, and are left out")
