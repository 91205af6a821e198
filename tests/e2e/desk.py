"""The operator's desk: a machine that is none of the hosts, with ssh aliases gpu1, gpu2 … for them."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.rig.hosts import Rig, run
from tests.rig.image import VLLMRAY
from tests.rig.settings import base_settings

ADDRESSES = ("MODEL_CACHE_DIR", "RAY_HEAD_IP")


@dataclass(slots=True)
class Desk:
    """A folder with an .env file and, once it was made, a cluster file."""

    rig: Rig
    folder: Path
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.folder),
            "PATH": f"{self.rig.ssh}:{VLLMRAY.parent}:{os.environ['PATH']}",
            "LC_ALL": "C.UTF-8",
        }

    @property
    def file(self) -> Path:
        return self.folder / "vllmray.toml"

    def write_settings(self, **changes: str) -> None:
        """Settings for SmolLM2 on simulated GPUs, as base_settings has them, less the sizes: they are the file's."""
        settings = base_settings(self.rig) | changes
        left_out = ("TENSOR_PARALLEL_SIZE", "PIPELINE_PARALLEL_SIZE", *ADDRESSES)
        lines = [f"{name}={value}" for name, value in settings.items() if name not in left_out]
        (self.folder / ".env").write_text("\n".join(lines) + "\n")

    def vllmray(self, *argv: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        command = (str(VLLMRAY), *argv)
        done = run(*command, check=False, cwd=self.folder, env=self.environment, timeout=timeout)
        print(f"desk$ vllmray {' '.join(argv)}\n{done.stdout}{done.stderr}[exit {done.returncode}]")
        return done

    def start(self, *argv: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            (str(VLLMRAY), *argv),
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.running.append(process)
        return process

    def status(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(self.vllmray("status", "--json").stdout)["data"]
        return data

    def containers(self) -> dict[str, str]:
        """ "host name" -> id and time of start, on all hosts."""
        form = "{{.Name}} {{.Id}} {{.State.StartedAt}}"
        found = {}
        for host in self.rig.hosts:
            for line in host.inspected(form):
                name, _, rest = line.partition(" ")
                found[f"gpu{host.number} {name.lstrip('/')}"] = rest
        return found

    def left(self) -> list[str]:
        """Every trace of a cluster on any host."""
        return [
            f"gpu{host.number}: {each}"
            for host in self.rig.hosts
            for each in [
                *host.docker("ps", "--all", "--quiet").split(),
                *host.docker("volume", "ls", "--quiet").split(),
                *host.processes(),
                *(f"port {port}" for port in host.listening()),
            ]
        ]
