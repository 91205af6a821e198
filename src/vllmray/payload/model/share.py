"""Runs on each host, in a container: gets the files of a folder from another host, and gives them to a further one.

    share.py FILE       with the request, a JSON object:
        root, entries       the folder, and what is to be in it (entries.py)
        texts               files to write at the end, by path: refs/main of the hub's cache
        sources             [address, port] of the hosts to get them from, the first one first; empty on the source
        patience            seconds of silence before the next of them is asked, if not SILENCE_S
        listen              [address, port] to give them at; port 0 for any
        token_file, certificate_file, key_file

Hosts make a chain: each gets a file from the one before and gives it on while it is still coming, so that a file leaves
its source once and all have it at nearly the same time. Connections are TLS; the certificate is made for one transfer,
and who connects has that transfer's token. What has come stays as NAME.incomplete, is continued after a break, and gets
its name when its size and digest are right. One JSON object a line tells how far it is.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # in a container: the folder that holds vllmray's package
    sys.path[0] = str(Path(__file__).parents[3])

from vllmray.payload.model.entries import CHUNK, Digest, Entry, below, checked

PART = ".incomplete"
SILENCE_S = 20.0
"""Of a connection that gives nothing, until another is tried."""
GIVE_UP_S = 120.0
"""Without a byte from any host."""
TRIES = 3
"""Of a file whose digest is wrong."""
PIECE = 1024**2
"""Bytes that are written, and may be given on, at once."""
SAY_S = 1.0
IDLE_S = 300.0
"""Without a byte given, until it ends by itself: the command that started it was killed."""
LINE = 512
"""Bytes of a request: token, number of the entry, offset."""


class TransferError(Exception):
    """It can't be finished; the text is for a person."""


class Files:
    """The files of the folder as far as they are here; safe to use from several threads."""

    def __init__(self, root: Path, entries: list[Entry]) -> None:
        self.root, self.entries = root, entries
        self._here = [0 if entry.link else self._size(entry) for entry in entries]
        self.changed = threading.Condition()

    def _size(self, entry: Entry) -> int:
        """Of a file that is whole; of one that is not, nothing counts until it is continued."""
        with suppress(OSError):
            return entry.size if (self.root / entry.path).stat().st_size == entry.size else 0
        return 0

    def path(self, number: int) -> Path:
        """Where it is, or will be."""
        return self.root / self.entries[number].path

    def part(self, number: int) -> Path:
        """Where it grows."""
        path = self.path(number)
        return path.with_name(path.name + PART)

    def is_whole(self, number: int) -> bool:
        """It has its name, and its size."""
        with suppress(OSError):
            return self.path(number).stat().st_size == self.entries[number].size
        return False

    def set_here(self, number: int, size: int) -> None:
        """So many bytes of it are on the disk."""
        with self.changed:
            self._here[number] = size
            self.changed.notify_all()

    def here(self, number: int) -> int:
        """Bytes of it that are on the disk."""
        with self.changed:
            return self._here[number]

    @property
    def done(self) -> int:
        """Bytes of all that are here."""
        with self.changed:
            return sum(self._here)

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.entries)

    def _beyond(self, number: int, offset: int) -> int:
        """Bytes of it that are here, as soon as they are more than that, or after a while."""
        with self.changed:
            self.changed.wait_for(lambda: self._here[number] > offset, timeout=SILENCE_S)
            return self._here[number]

    def pieces(self, number: int, offset: int) -> Iterator[bytes]:
        """Its bytes from there on, each as soon as it is here; ends early when none comes for a while."""
        size, opened = self.entries[number].size, None
        try:
            while offset < size:
                here = self._beyond(number, offset)
                if here <= offset:
                    return
                if opened is None:
                    path = self.path(number) if self.is_whole(number) else self.part(number)
                    opened = path.open("rb", buffering=0)
                    opened.seek(offset)
                data = opened.read(min(CHUNK, here - offset))
                if not data:
                    return
                offset += len(data)
                yield data
        finally:
            if opened is not None:
                opened.close()


class Giver:
    """Gives the files to those who have the token."""

    def __init__(self, files: Files, request: dict[str, Any]) -> None:
        self._files = files
        self._token = Path(request["token_file"]).read_text().strip()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(request["certificate_file"], request["key_file"])
        self._socket = socket.create_server(tuple(request["listen"]), backlog=16)
        self.gave_at = time.monotonic()
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        with plain, suppress(OSError, ValueError, IndexError):
            plain.settimeout(SILENCE_S)
            with self._context.wrap_socket(plain, server_side=True) as connection:
                with connection.makefile("rb") as lines:
                    token, number, offset = lines.readline(LINE).decode().split()
                if not _same(token, self._token):
                    return
                for data in self._files.pieces(int(number), int(offset)):
                    connection.sendall(data)
                    self.gave_at = time.monotonic()


def _same(one: str, other: str) -> bool:
    import hmac

    return hmac.compare_digest(one.encode(), other.encode())


class Taker:
    """Gets the files from the first host of a list that gives them."""

    def __init__(self, files: Files, request: dict[str, Any]) -> None:
        self._files = files
        self._token = Path(request["token_file"]).read_text().strip()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname = False  # the certificate is this transfer's alone: it names the host by itself
        self._context.load_verify_locations(request["certificate_file"])
        self._sources = [tuple(source) for source in request["sources"]]
        self._came_at = time.monotonic()
        self._turn = 0
        """Which of the sources: the next one only after a silence, since all hosts begin at the same time."""
        self._patience = float(request.get("patience", SILENCE_S))
        self._why = ""

    def run(self) -> None:
        """Get every file, then make the links.

        Raises:
            TransferError: no host gives them, the disk is full, or a file comes wrong again and again.
        """
        self._check_room()
        for number, entry in enumerate(self._files.entries):
            if not entry.link and not self._files.is_whole(number):
                self._file(number, entry)
        for number, entry in enumerate(self._files.entries):
            if entry.link:
                _link(self._files.path(number), entry.link)

    def _check_room(self) -> None:
        missing = 0
        for number, entry in enumerate(self._files.entries):
            if not entry.link and not self._files.is_whole(number):
                part = self._files.part(number)
                missing += entry.size - (part.stat().st_size if part.exists() else 0)
        self._files.root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._files.root).free
        if missing > free:
            raise TransferError(
                f"not enough space: {missing / 1e9:.1f} GB are missing and {free / 1e9:.1f} GB are free"
            )

    def _file(self, number: int, entry: Entry) -> None:
        self._files.path(number).parent.mkdir(parents=True, exist_ok=True)
        for _ in range(TRIES):
            digest = self._whole(number, entry)
            if digest == entry.digest:
                os.replace(self._files.part(number), self._files.path(number))
                return
            self._files.part(number).unlink()
            self._files.set_here(number, 0)
        raise TransferError(f"{entry.path} came with other contents {TRIES} times: its digest is {digest}")

    def _whole(self, number: int, entry: Entry) -> str:
        """Continue the file to its end; returns its digest."""
        part = self._files.part(number)
        if part.exists() and part.stat().st_size > entry.size:
            part.unlink()
        digest = Digest(entry.digest.partition(":")[0], entry.size)
        with part.open("ab", buffering=0) as out:
            if out.tell():
                digest.add_file(part)
            self._files.set_here(number, out.tell())
            while out.tell() < entry.size:
                source = self._sources[self._turn % len(self._sources)]
                try:
                    came = self._some(source, number, out, digest)
                except (OSError, ssl.SSLError) as error:
                    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                        raise TransferError(f"can't write {part}: {error.strerror}") from error
                    came, self._why = 0, f"{source[0]}: {error}"
                silent = time.monotonic() - self._came_at
                if not came and silent > self._patience:
                    self._turn += 1
                if silent > GIVE_UP_S:
                    raise TransferError(
                        f"nothing came for {GIVE_UP_S:.0f} s; {self._why or 'the connection is silent'}"
                    )
                if not came:
                    time.sleep(0.5)
        return digest.text

    def _some(self, source: tuple[str, int], number: int, out: Any, digest: Digest) -> int:
        """What one connection gives; returns its bytes."""
        came = 0
        size = self._files.entries[number].size
        plain = socket.create_connection(source, timeout=SILENCE_S)
        with plain, self._context.wrap_socket(plain) as connection:
            connection.sendall(f"{self._token} {number} {out.tell()}\n".encode())
            buffer = memoryview(bytearray(PIECE))
            while out.tell() < size:
                count = _filled(connection, buffer[: size - out.tell()])
                if not count:
                    break
                out.write(buffer[:count])
                digest.add(buffer[:count])
                came += count
                self._came_at = time.monotonic()
                self._files.set_here(number, out.tell())
        return came


def _filled(connection: socket.socket, buffer: memoryview) -> int:
    """Receive until the buffer is full or the other side ends; returns the bytes. TLS gives 16 KiB at a time."""
    count = 0
    while count < len(buffer):
        got = connection.recv_into(buffer[count:])
        if not got:
            break
        count += got
    return count


def _link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not (path.is_symlink() and os.readlink(path) == target):
        fresh = path.with_name(path.name + PART)
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(target)
        os.replace(fresh, path)


def say(**words: object) -> None:
    """One line for the command."""
    print(json.dumps(words), flush=True)


def main(request: dict[str, Any]) -> int:
    """Get what is missing, and give it on, until the container is removed."""
    files = Files(Path(request["root"]), [checked(entry) for entry in request["entries"]])
    giver = Giver(files, request)
    say(port=giver.port, done=files.done, total=files.total)
    failed: list[str] = []
    if request["sources"]:
        taker = threading.Thread(target=_take, args=(files, request, failed), daemon=True)
        taker.start()
        while taker.is_alive():
            taker.join(SAY_S)
            say(done=files.done, total=files.total)
    if failed:
        say(error=failed[0])
        return 1
    for name, text in request.get("texts", {}).items():
        path = files.root / below(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    say(whole=True, done=files.done, total=files.total)
    while time.monotonic() - giver.gave_at < IDLE_S:  # it gives on until it is ended, or was forgotten
        time.sleep(SAY_S)
    return 0


def _take(files: Files, request: dict[str, Any], failed: list[str]) -> None:
    try:
        Taker(files, request).run()
    except TransferError as error:
        failed.append(str(error))
    except Exception as error:
        failed.append(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    sys.exit(main(json.loads(Path(sys.argv[1]).read_text())))
