"""What the command of a Compose service says: Ray's role, the head's address, vLLM's flags."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
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


@dataclass(slots=True)
class Command:
    """What was read of one command."""

    role: Role | None = None
    """None where it does not start Ray."""
    serves: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    vllm_args: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


def read_command(words: Sequence[str]) -> Command:
    """Read a service's entrypoint and command together, shell lines inside them too."""
    found = Command()
    for part in _parts(words):
        if part[:1] == ["ray"] or "ray.scripts.scripts" in part:
            _ray(part, found)
        elif _SERVER.search(" ".join(part)):
            found.serves = True
            _vllm(part, found)
        elif part and part[0] == "sleep":
            found.notices.append(f"{' '.join(part[:2])}: not needed, the engine waits for its GPUs")
    return found


def _parts(words: Sequence[str]) -> list[list[str]]:
    """The commands in it: of `bash -c TEXT` those in the text, and so on."""
    text = next((word for before, word in pairwise(words) if before in ("-c", "-lc", "-ec")), None)
    if text is None:
        return [list(words)]
    lines = _BREAKS.split(text.replace("\\\n", " "))
    return [part for line in lines if (inner := _words(line)) for part in _parts(inner)]


def _words(line: str) -> list[str]:
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # a quote that another part closes
        words = line.split()
    return words[1:] if words[:1] in (["exec"], ["then"], ["do"]) else words


def _ray(words: list[str], found: Command) -> None:
    given = {name.partition("=")[0]: name.partition("=")[2] for name in words if name.startswith("--")}
    valued = ("--address", "--node-ip-address")
    given |= {name: word for name, word in pairwise(words) if name in valued and not word.startswith("-")}
    if "start" not in words:
        return
    if "--head" in given:
        found.role = "head"
        if given.get("--node-ip-address"):
            found.settings["node_ip"] = given["--node-ip-address"]
    elif "--address" in given:
        found.role = "worker"
        found.settings["head_ip"] = given["--address"].rpartition(":")[0] or given["--address"]
        if given.get("--node-ip-address"):
            found.settings["node_ip"] = given["--node-ip-address"]


def _vllm(words: list[str], found: Command) -> None:
    at = next((number for number, word in enumerate(words) if word == "serve" or word.endswith("api_server")), 0)
    args = words[at + 1 :]
    if words[at] == "serve" and args and not args[0].startswith("-"):
        found.settings["model"] = args.pop(0)
    read = read_flags(args)
    for given in read.flags:
        name = given.names[0] if len(given.names) == 1 else given.typed
        shown = shlex.join(args[given.begin : given.end])
        if name in SETTINGS and given.values:
            found.settings[SETTINGS[name]] = given.values[0]
        elif name in OWN:
            found.notices.append(f"{given.typed}: {OWN[name]}")
        elif problems := flag_conflicts(args[given.begin : given.end]):
            found.notices.append(f"{given.typed if 'key' in name else shown}: {'; '.join(problems)}")
        else:
            found.vllm_args += args[given.begin : given.end]
    found.notices += [f"{stray!r} is not a flag of vLLM" for stray in read.strays]
