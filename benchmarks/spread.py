"""A model from one host to eight, beside one host to one: payload/model/share.py in namespaces with links of 1 Gbit/s.

    .venv/bin/python -m benchmarks.spread [--size 2000] [--receivers 8] [--rate 1000]

Needs root, iproute2 and a free disk of (receivers + 2) times the size (MB). Each host is a network namespace on one
bridge; tc shapes what leaves it and what comes to it. Prints the seconds, their ratio and what the source sent.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

from vllmray.payload.model import share
from vllmray.payload.model.entries import Entry
from vllmray.secrets.certificate import throwaway

SWITCH, MB = "spread-switch", 10**6
FILES = 4


def sh(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


@contextmanager
def network(count: int, rate: int) -> Iterator[None]:
    """Namespaces spread0 … with addresses 10.79.0.1 …, each with a link of that many Mbit/s both ways."""
    names = [f"spread{number}" for number in range(count)]
    try:
        sh("ip", "netns", "add", SWITCH)
        sh("ip", "-n", SWITCH, "link", "add", "br0", "type", "bridge")
        sh("ip", "-n", SWITCH, "link", "set", "br0", "up")
        for number, name in enumerate(names):
            sh("ip", "netns", "add", name)
            sh(
                "ip",
                "link",
                "add",
                "eth0",
                "netns",
                name,
                "type",
                "veth",
                "peer",
                "name",
                f"p{number}",
                "netns",
                SWITCH,
            )
            sh("ip", "-n", SWITCH, "link", "set", f"p{number}", "master", "br0", "up")
            sh("ip", "-n", name, "addr", "add", f"10.79.0.{number + 1}/24", "dev", "eth0")
            sh("ip", "-n", name, "link", "set", "lo", "up")
            sh("ip", "-n", name, "link", "set", "eth0", "up")
            for namespace, link in ((name, "eth0"), (SWITCH, f"p{number}")):
                shape = ("root", "tbf", "rate", f"{rate}mbit", "burst", "1mb", "latency", "50ms")
                sh("ip", "netns", "exec", namespace, "tc", "qdisc", "add", "dev", link, *shape)
        yield
    finally:
        for name in (*names, SWITCH):
            subprocess.run(("ip", "netns", "del", name), check=False, capture_output=True)


def make(folder: Path, size: int) -> list[Entry]:
    """Made-up weights of that many bytes in all."""
    folder.mkdir()
    entries = []
    for number in range(FILES):
        digest, left = hashlib.sha256(), size // FILES
        name = f"model-{number}.safetensors"
        with (folder / name).open("wb") as file:
            while left:
                data = os.urandom(min(left, 8 * 2**20))
                file.write(data)
                digest.update(data)
                left -= len(data)
        entries.append(Entry(name, size // FILES, f"sha256:{digest.hexdigest()}"))
    return entries


def sent(name: str) -> int:
    """Bytes that left a host."""
    return int(json.loads(sh("ip", "-n", name, "-j", "-s", "link", "show", "eth0"))[0]["stats64"]["tx"]["bytes"])


def transfer(work: Path, entries: list[Entry], receivers: int) -> tuple[float, int]:
    """Seconds from the first program's start until all have every file, and what the source sent."""
    certificate = throwaway("10.79.0.1")
    texts = {"token": "t" * 32, "cert": certificate.chain, "key": certificate.key.get_secret_value()}
    before, began = sent("spread0"), time.monotonic()
    with ExitStack() as stack:
        running = []
        for number in range(receivers + 1):
            place = work / f"run{receivers}-{number}"
            place.mkdir()
            for name, text in texts.items():
                (place / name).write_text(text)
            sources = dict.fromkeys(f"10.79.0.{each}" for each in (number, 1)) if number else {}
            request = {
                "root": str(work / "source" if not number else place / "target"),
                "entries": [asdict(entry) for entry in entries],
                "sources": [[address, 6385] for address in sources],
                "listen": [f"10.79.0.{number + 1}", 6385],
                **{
                    f"{name}_file": str(place / short)
                    for name, short in (("token", "token"), ("certificate", "cert"), ("key", "key"))
                },
            }
            (place / "request").write_text(json.dumps(request))
            argv = (
                "ip",
                "netns",
                "exec",
                f"spread{number}",
                sys.executable,
                str(share.__file__),
                str(place / "request"),
            )
            process = stack.enter_context(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True))
            stack.callback(process.kill)
            running.append(process)
        for process in running[1:]:
            for line in process.stdout or ():
                found = json.loads(line)
                if "error" in found:
                    raise SystemExit(found["error"])
                if found.get("whole"):
                    break
        took = time.monotonic() - began
    for number in range(1, receivers + 1):
        shutil.rmtree(work / f"run{receivers}-{number}" / "target")
    return took, sent("spread0") - before


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=2000, help="MB")
    parser.add_argument("--receivers", type=int, default=8)
    parser.add_argument("--rate", type=int, default=1000, help="Mbit/s")
    asked = parser.parse_args()
    size = asked.size * MB
    with tempfile.TemporaryDirectory() as folder, network(asked.receivers + 1, asked.rate):
        work = Path(folder)
        entries = make(work / "source", size)
        one, sent_to_one = transfer(work, entries, 1)
        all_, sent_to_all = transfer(work, entries, asked.receivers)
    print(
        f"{asked.size} MB at {asked.rate} Mbit/s: 1 receiver {one:.1f} s, {asked.receivers} receivers {all_:.1f} s, "
        f"ratio {all_ / one:.2f}; the source sent {sent_to_one / size:.2f} and {sent_to_all / size:.2f} times the model"
    )


if __name__ == "__main__":
    main()
