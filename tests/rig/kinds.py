"""The kinds of daemon that a host of the rig can have."""

from __future__ import annotations

import json
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.rig.suites import within

ROOTLESS_ID = 4242
# In the mount namespace of its own: a user with a range of ids, whom the machine does not know.
AS_USER = f"""
set -e
folder=$0 data=$1
shift
rm -rf "$data-run"  # of before a reboot
mkdir -p "$folder/home" "$folder/runtime" "$data" "$data-run"
for name in passwd group subuid subgid; do
  touch "/etc/$name"
  cat "/etc/$name" > "$folder/$name"
done
echo rootless:x:{ROOTLESS_ID}:{ROOTLESS_ID}::/:/bin/sh >> "$folder/passwd"
echo rootless:x:{ROOTLESS_ID}: >> "$folder/group"
for name in subuid subgid; do echo rootless:{ROOTLESS_ID}00000:65536 >> "$folder/$name"; done
for name in passwd group subuid subgid; do mount --bind "$folder/$name" "/etc/$name"; done
# For a network of its own; Debian gives /dev/net/tun to everyone, a bare kernel to root alone.
[ -e "$folder/tun" ] || mknod -m 666 "$folder/tun" c 10 200
mount --bind "$folder/tun" /dev/net/tun
chown {ROOTLESS_ID}:{ROOTLESS_ID} "$folder" "$folder/home" "$folder/runtime" "$data" "$data-run"
exec setpriv --reuid {ROOTLESS_ID} --regid {ROOTLESS_ID} --clear-groups --reset-env \\
  env HOME="$folder/home" XDG_RUNTIME_DIR="$folder/runtime" "$@"
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """A program with an Engine API."""

    name: str
    program: Literal["docker", "podman"]
    suite: str | None = None
    """The Debian release that it is of; None for this machine's own."""
    options: tuple[str, ...] = ()
    rootless: bool = False

    @property
    def folder(self) -> str:
        """A name for what it keeps."""
        return self.name.lower().replace(" ", "-")

    def command(self, folder: Path, data: Path, *, tcp: str) -> tuple[str, ...]:
        """The command line that starts it, listening on folder/docker.sock."""
        argv = self._docker(folder, data, tcp) if self.program == "docker" else self._podman(folder, data)
        if self.rootless:
            argv = ("sh", "-c", AS_USER, str(folder), str(data), *argv)
        return within(self.suite, self.program, *argv) if self.suite else argv

    def _docker(self, folder: Path, data: Path, tcp: str) -> tuple[str, ...]:
        return (
            *("dockerd", "--data-root", str(data), "--exec-root", str(folder / "exec")),
            *("--pidfile", str(folder / "pid"), "-H", f"unix://{folder}/docker.sock", "-H", f"tcp://{tcp}:2375"),
            *("--bridge=none", "--iptables=false", "--tls=false"),
            # One attempt and one more; with the usual five a pull that never works takes 75 s.
            *("--max-download-attempts", "1"),
            *(option.format(folder=folder) for option in self.options),
        )

    def _podman(self, folder: Path, data: Path) -> tuple[str, ...]:
        # Its own limits are higher than a test machine may allow, and it does not start with fewer (runc, setrlimit).
        limits = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC}
        most = {name: resource.getrlimit(limit)[1] for name, limit in limits.items()}
        settings = folder / "containers.conf"
        ulimits = json.dumps([f"{name}={hard}:{hard}" for name, hard in most.items() if hard >= 0])
        settings.write_text(f"[containers]\ndefault_ulimits = {ulimits}\n")
        # Its own choice of a runtime, crun, refuses a machine that has both versions of cgroups.
        # Not below /run: a rootless one hides that from its own networks' programs.
        state = f"{data}-run" if self.rootless else str(folder / "exec")
        return (
            *("env", f"CONTAINERS_CONF_OVERRIDE={settings}"),
            *("podman", "--root", str(data), "--runroot", state, "--runtime", "runc"),
            *("--cgroup-manager", "cgroupfs", "--events-backend", "file", *self.options),
            *("system", "service", "--time=0", f"unix://{folder}/docker.sock"),
        )


DOCKER_20 = Kind("Docker 20.10", "docker")
DOCKER_26 = Kind("Docker 26", "docker", "trixie")
CDI = ("--cdi-spec-dir", "{folder}/cdi")
DOCKER_28 = Kind("Docker 28", "docker", "forky", (*CDI, "--feature", "containerd-snapshotter=false"))
DOCKER_28_CONTAINERD = Kind(
    "Docker 28 containerd", "docker", "forky", (*CDI, "--feature", "containerd-snapshotter=true")
)
PODMAN_5_4 = Kind("Podman 5.4", "podman", "trixie")
PODMAN_5_8 = Kind("Podman 5.8", "podman", "forky")
PODMAN_5_8_ROOTLESS = Kind("Podman 5.8 rootless", "podman", "forky", rootless=True)
_ALL = (DOCKER_20, DOCKER_26, DOCKER_28, DOCKER_28_CONTAINERD, PODMAN_5_4, PODMAN_5_8, PODMAN_5_8_ROOTLESS)
BY_NAME = {kind.name: kind for kind in _ALL}
