"""Run by scripts/gpu-acceptance: vllmray on the two NVIDIA GPUs of this machine, as users have it; prints one table.

    scripts/gpu-acceptance                               # every row
    scripts/gpu-acceptance --rows 1native,4 --env NCCL_NVLS_ENABLE=0
    scripts/gpu-acceptance --rehearse                    # the whole of it on simulated GPUs, with a tiny model

It wants Python with vllmray, vLLM and Ray; for the rows with Docker root, dockerd, ip, and an image (--image) with
both, or --image-of-this-machine, which makes one of the machine's own files. Rows are numbered as in the document;
--results keeps what other runs found.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.gpu import machine, places, results, shapes
from tests.gpu.places import DockerHost
from tests.gpu.results import Row
from tests.gpu.rows import rows_of
from tests.gpu.setting import Bench, Setting
from vllmray.engine.argv import CPU_COMPILATION

ALL = "1,2,3,4,5,6,7,9"
DOCKER_ROWS = {"1", "1docker", "2", "5", "9", "9docker"}
# As vllmray has it on CPUs, for the server by hand too.
EAGER = f"--compilation-config={json.dumps(CPU_COMPILATION)}"
IMAGE_ENVIRONMENT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH")


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/gpu-acceptance", description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", default=ALL)
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="for every node")
    parser.add_argument("--image", default="vllmray-gpu-acceptance:1")
    parser.add_argument("--image-of-this-machine", action="store_true")
    parser.add_argument("--left-out", action="append", default=[], metavar="PATH", help="of that image")
    parser.add_argument("--results", type=Path, default=Path("docs/gpu-acceptance.json"))
    parser.add_argument("--document", type=Path, default=Path("docs/gpu-acceptance.md"))
    parser.add_argument("--work", type=Path, default=None, help="folder for models, caches and logs")
    parser.add_argument("--rehearse", action="store_true")
    options = parser.parse_args()
    wanted = options.rows.split(",")
    folder = options.work or Path(tempfile.mkdtemp(prefix="vllmray-gpu-"))
    hosts = [DockerHost(number, folder / f"daemon{number}") for number in (1, 2)] if DOCKER_ROWS & set(wanted) else []
    environment = dict(text.partition("=")[::2] for text in options.env)
    setting = _setting(options, folder, environment, hosts)
    run = _run(options)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # daemons are ended on the way out
    found: list[Row] = []
    try:
        if hosts:
            places.lay_cable()
            for host in hosts:
                host.start()
        if hosts and options.image_of_this_machine:
            setting.wait_for_image = _image(options, hosts, environment, folder)
        for rows in rows_of(setting, wanted):
            for row in rows:
                print(row.line, end="", flush=True)
            found += rows
            if not options.rehearse:
                results.write(options.document, *results.merge(options.results, found, run))
    except Exception:  # noqa: BLE001  # what was found so far is kept, and this is the end of the run
        traceback.print_exc()
        return 1
    finally:
        for host in hosts:
            host.stop()
        if hosts:
            places.remove_cable()
    print(results.table(found))
    return 1 if any(row.wrong for row in found) else 0


def _image(
    options: argparse.Namespace, hosts: list[DockerHost], environment: dict[str, str], folder: Path
) -> Callable[[], object]:
    """Begin to make it; what waits for it."""

    def make() -> None:
        began = time.monotonic()
        own = {name: os.environ[name] for name in IMAGE_ENVIRONMENT if name in os.environ}
        left_out = (*options.left_out, str(folder).lstrip("/"))
        places.image_of_this_machine(options.image, hosts, own | environment, left_out)
        print(f"image of this machine on both hosts: {time.monotonic() - began:.0f} s", flush=True)

    pool = ThreadPoolExecutor(1)
    made = pool.submit(make)
    pool.shutdown(wait=False)
    return made.result


def _setting(
    options: argparse.Namespace, folder: Path, environment: dict[str, str], hosts: list[DockerHost]
) -> Setting:
    setting = Setting(folder, environment, options.image, hosts)
    if options.rehearse:
        setting.small = setting.large = shapes.TINY
        setting.filling = {}
        setting.after = ("--max-num-seqs", "8", "--max-num-batched-tokens", "256", EAGER)
        setting.settings = {
            "VLLMRAY_ACCELERATOR": "cpu",
            "VLLMRAY_SHM_SIZE": "2g",
            "VLLMRAY_OBJECT_STORE_MEMORY": "100m",
            "VLLMRAY_NOFILE": "default",
            "VLLMRAY_GPUS": "2",
        }
        setting.gpus_of_two = ("1", "1")
        own = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLMRAY_CPU_SLOTS": "1"}
        setting.environment = environment | own
        setting.bench = Bench(8, 4, 32, 8)
    else:
        setting.memory = min(gpu.total for gpu in machine.gpus())
    return setting


def _run(options: argparse.Namespace) -> dict[str, str]:
    """When, on what, by which command."""
    run = {"name": time.strftime("%m-%d %H:%M"), "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())}
    run["command"] = "scripts/gpu-acceptance " + shlex.join(sys.argv[1:])
    if not options.rehearse:
        found = machine.gpus()
        run |= {"GPUs": f"{len(found)} x {found[0].name}", "driver": machine.driver()} | machine.versions()
    if shutil.which("dockerd"):
        said = subprocess.run(["dockerd", "--version"], capture_output=True, text=True, check=False).stdout
        run["Docker"] = said.removeprefix("Docker version ").partition(",")[0]
    return run


if __name__ == "__main__":
    sys.exit(main())
