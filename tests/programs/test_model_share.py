"""The programs that take model files from host to host, run here: real sockets, TLS, disks and broken connections."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from vllmray.payload.model import listing, share
from vllmray.payload.model.entries import Entry, checked, digest_of
from vllmray.secrets.certificate import throwaway

COMMIT = "c" * 40
MODEL = "org/model"
MB = 1024**2


def make_cache(cache: Path, sizes: dict[str, int]) -> Path:
    """A model in the hub's layout, with random contents."""
    root = listing.repository(cache, MODEL)
    for folder in ("blobs", f"snapshots/{COMMIT}", "refs"):
        (root / folder).mkdir(parents=True)
    for name, size in {"config.json": 2, **sizes}.items():
        content = b"{}" if name == "config.json" else os.urandom(size)
        kind = hashlib.sha256 if name.endswith("safetensors") else hashlib.sha1
        blob = kind(content if kind is hashlib.sha256 else b"blob %d\0" % len(content) + content).hexdigest()
        (root / "blobs" / blob).write_bytes(content)
        (root / f"snapshots/{COMMIT}/{name}").symlink_to(f"../../blobs/{blob}")
    (root / "refs/main").write_text(COMMIT)
    return root


def contents(root: Path) -> dict[str, str]:
    """Every file and link below a folder."""
    return {
        str(path.relative_to(root)): f"-> {path.readlink()}" if path.is_symlink() else digest_of(path, "sha256")
        for path in sorted(root.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


@dataclass
class Running:
    """One host's program."""

    process: subprocess.Popen[str]
    port: int = 0
    lines: list[dict[str, Any]] = field(default_factory=list)
    reader: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.reader = threading.Thread(target=self.read, daemon=True)

    def read(self) -> None:
        for line in self.process.stdout or ():
            self.lines.append(json.loads(line))

    def last(self, key: str, seconds: float = 60) -> Any:
        """The newest value of that key, waited for."""
        deadline = time.monotonic() + seconds
        while True:
            found = [line[key] for line in self.lines if key in line]
            if found:
                return found[-1]
            assert time.monotonic() < deadline, (key, self.lines[-3:])
            time.sleep(0.02)


class Hosts:
    """Starts the programs of one transfer, each with the transfer's secrets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        certificate = throwaway("127.0.0.1")
        self.secrets = {"token": "a-token", "cert": certificate.chain, "key": certificate.key.get_secret_value()}
        self.started: list[Running] = []

    def start(self, root: Path, entries: list[Entry], sources: list[int], **changes: Any) -> Running:
        place = self.folder / f"host{len(self.started)}"
        place.mkdir()
        for name, text in (self.secrets | changes.pop("secrets", {})).items():
            (place / name).write_text(text)
        request = {
            "root": str(root),
            "entries": [asdict(entry) for entry in entries],
            "sources": [["127.0.0.1", port] for port in sources],
            "listen": ["127.0.0.1", 0],
            "token_file": str(place / "token"),
            "certificate_file": str(place / "cert"),
            "key_file": str(place / "key"),
        }
        (place / "request.json").write_text(json.dumps(request | changes))
        argv = [sys.executable, str(Path(str(share.__file__))), str(place / "request.json")]
        running = Running(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True))
        running.reader.start()
        self.started.append(running)
        running.port = running.last("port")
        return running


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    made = Hosts(tmp_path)
    yield made
    for running in made.started:
        running.process.kill()
        running.process.wait()
        running.reader.join()
        if running.process.stdout:
            running.process.stdout.close()


@pytest.fixture
def source(tmp_path: Path) -> tuple[Path, list[Entry]]:
    """A model's repository, and what is in it."""
    root = make_cache(tmp_path / "source", {"a.safetensors": 24 * MB, "b.safetensors": 3 * MB, "empty.txt": 0})
    found = listing.answer({"cache": str(tmp_path / "source"), "model": MODEL, "revision": "main"})
    assert (found["whole"], found["commit"]) == (True, COMMIT)
    return root, [Entry(**entry) for entry in found["entries"]]


def largest(entries: list[Entry], target: Path) -> tuple[Entry, Path]:
    """The largest file, and where it grows on a host that has nothing yet."""
    big = max(entries, key=lambda entry: entry.size)
    part = target / f"{big.path}.incomplete"
    part.parent.mkdir(parents=True)
    return big, part


def test_a_chain_of_hosts_gets_the_same_files_and_each_asks_the_one_before_it(
    hosts: Hosts, source: tuple[Path, list[Entry]], tmp_path: Path
) -> None:
    root, entries = source
    ports = [hosts.start(root, entries, []).port]
    for name in ("one", "two", "three"):
        running = hosts.start(tmp_path / name, entries, ports[-1:], texts={"refs/main": COMMIT})
        ports.append(running.port)
    for running in hosts.started[1:]:
        assert running.last("whole") is True
        assert running.last("done") == sum(entry.size for entry in entries)
    for name in ("one", "two", "three"):
        assert contents(tmp_path / name) == contents(root)


def test_what_has_come_is_continued_and_not_sent_again(
    hosts: Hosts, source: tuple[Path, list[Entry]], tmp_path: Path
) -> None:
    root, entries = source
    big, part = largest(entries, tmp_path / "target")
    part.write_bytes((root / big.path).read_bytes()[: 20 * MB])
    giver = hosts.start(root, entries, [])
    taker = hosts.start(tmp_path / "target", entries, [giver.port])
    assert taker.last("whole") is True
    assert taker.lines[0]["done"] < taker.last("total")
    assert contents(tmp_path / "target") == {k: v for k, v in contents(root).items() if k != "refs/main"}


def test_a_part_with_other_bytes_is_found_out_and_fetched_anew(
    hosts: Hosts, source: tuple[Path, list[Entry]], tmp_path: Path
) -> None:
    root, entries = source
    big, part = largest(entries, tmp_path / "target")
    part.write_bytes(b"x" * MB)
    taker = hosts.start(tmp_path / "target", entries, [hosts.start(root, entries, []).port])
    assert taker.last("whole") is True
    assert digest_of(tmp_path / "target" / big.path, "sha256") == big.digest


def test_a_changed_byte_on_the_source_is_refused_by_name(
    hosts: Hosts, source: tuple[Path, list[Entry]], tmp_path: Path
) -> None:
    root, entries = source
    small = min((entry for entry in entries if entry.size > MB), key=lambda entry: entry.size)
    with (root / small.path).open("r+b") as file:
        file.seek(1000)
        file.write(b"\0\1\2\3")
    taker = hosts.start(tmp_path / "target", entries, [hosts.start(root, entries, []).port])
    assert f"{small.path} came with other contents 3 times" in taker.last("error")
    assert taker.process.wait(10) == 1
    assert not (tmp_path / "target" / small.path).exists()


def test_who_has_another_token_or_certificate_gets_nothing(
    hosts: Hosts, source: tuple[Path, list[Entry]], tmp_path: Path
) -> None:
    root, entries = source
    giver = hosts.start(root, entries, [])
    other = throwaway("127.0.0.1")
    for secrets in ({"token": "another"}, {"cert": other.chain, "key": other.key.get_secret_value()}):
        target = tmp_path / f"t{len(hosts.started)}"
        taker = hosts.start(target, entries, [giver.port], secrets=secrets)
        time.sleep(2)
        assert taker.last("done") == 0
        assert not [path for path in target.rglob("*") if path.is_file() and path.stat().st_size]


def test_a_host_that_dies_is_passed_over(hosts: Hosts, source: tuple[Path, list[Entry]], tmp_path: Path) -> None:
    root, entries = source
    giver = hosts.start(root, entries, [])
    middle = hosts.start(tmp_path / "middle", entries, [giver.port])
    middle.process.kill()
    middle.process.wait()
    last = hosts.start(tmp_path / "last", entries, [middle.port, giver.port], patience=1)
    assert last.last("whole") is True


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
def test_a_disk_that_is_too_small_is_said_before_anything_comes(
    hosts: Hosts, source: tuple[Path, list[Entry]], tmp_path: Path
) -> None:
    root, entries = source
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=10m", "tmpfs", str(disk)], check=True)
    try:
        taker = hosts.start(disk / "target", entries, [hosts.start(root, entries, []).port])
        assert "not enough space: 0.0 GB are missing" in taker.last("error")
        assert taker.process.wait(10) == 1
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize(
    "found",
    [
        {"path": "../x", "size": 1, "digest": "sha256:0"},
        {"path": "/etc/x", "size": 1, "digest": "sha256:0"},
        {"path": "a/../../x", "size": 1, "digest": "sha256:0"},
        {"path": "", "size": 1, "digest": "sha256:0"},
        {"path": "a\0b", "size": 1, "digest": "sha256:0"},
        {"path": "a", "link": "/etc/passwd"},
        {"path": "a/b", "link": "../../x"},
        {"path": "a", "size": 1},
        {"path": "a", "size": -1, "digest": "sha256:0"},
    ],
)
def test_what_is_not_below_the_folder_is_refused(found: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"not a path below|a link out of|no digest"):
        checked(found)


def test_a_model_without_a_shard_or_with_changed_bytes_is_not_whole(tmp_path: Path) -> None:
    root = make_cache(tmp_path, {"a.safetensors": 1000})
    request = {"cache": str(tmp_path), "model": MODEL, "revision": "main"}
    assert listing.answer(request)["whole"] is True
    blob = max((root / "blobs").iterdir(), key=lambda path: path.stat().st_size)
    blob.write_bytes(b"y" * 1000)
    assert listing.answer(request)["whole"] is True  # by size alone
    found = listing.answer(request | {"verify": True})
    assert (found["whole"], found["wrong"]) == (False, [f"blobs/{blob.name}: its contents have changed"])
    blob.unlink()
    assert listing.answer(request)["whole"] is False
    assert listing.answer(request | {"revision": "other"})["commit"] == ""


def test_one_shard_of_several_is_not_a_model_even_without_its_index(tmp_path: Path) -> None:
    request = {"cache": str(tmp_path), "model": MODEL, "revision": "main"}
    make_cache(tmp_path, {"model-00001-of-00002.safetensors": 1000})
    assert listing.answer(request)["whole"] is False
    shutil.rmtree(tmp_path / "hub")
    make_cache(tmp_path, {f"model-0000{number}-of-00002.safetensors": 1000 for number in (1, 2)})
    assert listing.answer(request)["whole"] is True


def test_a_folder_is_listed_with_its_contents(tmp_path: Path) -> None:
    (tmp_path / "m/sub").mkdir(parents=True)
    (tmp_path / "m/config.json").write_text("{}")
    (tmp_path / "m/model.safetensors").write_bytes(b"12")
    (tmp_path / "m/sub/x").write_text("y")
    found = listing.answer({"folder": str(tmp_path / "m")})
    assert found["whole"] is True
    assert [entry["path"] for entry in found["entries"]] == ["config.json", "model.safetensors", "sub/x"]
    shutil.rmtree(tmp_path / "m")
    assert listing.answer({"folder": str(tmp_path / "m")})["whole"] is False
