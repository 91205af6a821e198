"""Programs of another Debian release than this machine's, which need newer libraries; needs root and debootstrap.

    python -m tests.rig.suites forky docker      makes its root file system, and prints where it is

A program of it runs in a mount namespace of its own, where the release's /usr stands in place of this machine's: every
other path is this machine's, so that sockets, data folders and what a container mounts are where they are named.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.rig.image import cache_root

# By program: a release that is still being made may lack one of a package's neighbours for a while.
PACKAGES = {
    "docker": ("docker.io", "iptables", "iproute2", "ca-certificates"),
    "podman": (
        *("podman", "buildah", "catatonit", "conmon", "crun", "runc", "netavark", "aardvark-dns", "nftables"),
        *("passt", "fuse-overlayfs", "uidmap", "iproute2", "ca-certificates"),
    ),
}
ENTER = """
set -e
mount --make-rprivate /
mount --bind "$0/usr" /usr
if [ -d "$0/etc/containers" ]; then
  mkdir -p /etc/containers
  mount --bind "$0/etc/containers" /etc/containers
fi
exec "$@"
"""


def recipe(program: str) -> str:
    """Changes whenever a root file system would."""
    return hashlib.sha256(" ".join(PACKAGES[program]).encode()).hexdigest()[:12]


def root_of(suite: str, program: str) -> Path:
    """The root file system with that program, from the cache or made now (a minute or two)."""
    made = cache_root() / f"{suite}-{program}-{recipe(program)}"
    if made.exists():
        return made
    work = made.with_suffix(".work")
    shutil.rmtree(work, ignore_errors=True)
    print(f"[suite] installing Debian {suite} into a folder", file=sys.stderr, flush=True)
    # Its script is the same for every release since bookworm, and an older debootstrap does not know the newer names.
    _run("debootstrap", "--variant=minbase", suite, str(work), mirror(), "sid")
    policy = work / "usr/sbin/policy-rc.d"  # its services are not to start here
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    # Not by debootstrap, which takes no alternative of a dependency but the first.
    _run("chroot", str(work), "apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *PACKAGES[program])
    shutil.rmtree(work / "var/cache/apt")
    work.rename(made)
    return made


def mirror() -> str:
    """Where this machine has its packages from."""
    found = _archives()
    if not found:  # apt knows whose an archive is once it has read its lists
        _run("apt-get", "update", "-qq")
        found = _archives()
    return next(uri for uri in found if "security" not in uri)


def _archives() -> list[str]:
    return subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()


def within(suite: str, program: str, *argv: str) -> tuple[str, ...]:
    """The command line that runs a program of that release; the process that is started becomes the program."""
    return ("unshare", "--mount", "sh", "-c", ENTER, str(root_of(suite, program)), *argv)


def _run(*argv: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.stderr.write(f"{' '.join(argv)}\n{(done.stdout + done.stderr)[-4000:]}\n")
        done.check_returncode()


if __name__ == "__main__":
    print(root_of(*sys.argv[1:]))
