"""A small Hugging Face hub on loopback: the requests that huggingface_hub makes, and the real hub's refusals.

Statuses and X-Error headers are those that huggingface_hub 2.4 reads (utils/_http.py, hf_raise_for_status); a test
holds this hub to the library's own calls. It speaks as much of ModelScope as its package asks for a model's files.
"""

from __future__ import annotations

import hashlib
import json
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
BAD_TOKEN = "Invalid credentials in Authorization header"


def safetensors(**shapes: tuple[int, ...]) -> bytes:
    """A file with tensors of 16-bit floats, all zero."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * _product(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(end)


def index(**shards: str) -> bytes:
    """A model.safetensors.index.json: a tensor's name -> the file it is in."""
    return json.dumps({"metadata": {}, "weight_map": shards}).encode()


def _product(shape: tuple[int, ...]) -> int:
    result = 1
    for length in shape:
        result *= length
    return result


@dataclass
class Model:
    """One repository."""

    files: Mapping[str, bytes]
    sizes: Mapping[str, int] = field(default_factory=dict)
    """For weights that are listed and never downloaded."""
    gated: bool = False
    private: bool = False
    revisions: tuple[str, ...] = ("main",)

    def size(self, name: str) -> int:
        return self.sizes.get(name, len(self.files.get(name, b"")))

    @property
    def names(self) -> list[str]:
        return [*self.files, *(name for name in self.sizes if name not in self.files)]


@dataclass(frozen=True)
class Seen:
    """One request."""

    method: str
    path: str
    authorization: str | None
    agent: str


@dataclass
class FakeHub:
    """The hub's whole state; tests change it while it runs."""

    url: str = ""
    models: dict[str, Model] = field(default_factory=dict)
    tokens: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Each token with the private and gated models that it opens."""
    failures: list[int] = field(default_factory=list)
    """Statuses of the next answers."""
    page: bytes | None = None
    """The body of every answer instead, like a captive portal's login page."""
    files_at: str = ""
    """Where files are redirected to, as the real hub does with large ones."""
    hanging: bool = False
    released: threading.Event = field(default_factory=threading.Event)
    """Set to end requests that hang."""
    seen: list[Seen] = field(default_factory=list)

    @property
    def paths(self) -> list[str]:
        return [request.path for request in self.seen]


@contextmanager
def serving(address: str = "127.0.0.1") -> Iterator[FakeHub]:
    """A hub while the block runs."""
    hub = FakeHub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer((address, 0), handler) as server:
        hub.url = f"http://{address}:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            hub.released.set()
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: ClassVar[FakeHub]
    timeout = 30

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_GET  # noqa: N815  # http.server's own name

    def log_message(self, *args: Any) -> None:
        """Log nothing: the tests read `seen`."""

    def _answer(self) -> None:
        hub = self.hub
        agent = self.headers.get("User-Agent", "")
        hub.seen.append(Seen(self.command, self.path, self.headers.get("Authorization"), agent))
        if hub.hanging:
            hub.released.wait(60)
        elif hub.failures:
            self._send(hub.failures.pop(0), b"upstream failed")
        elif hub.page is not None:
            self._send(200, hub.page, {"Content-Type": "text/html"})
        elif self._token_is_unknown():
            self._refuse(401, message=BAD_TOKEN)
        else:
            self._route(urlsplit(self.path))

    def _route(self, url: Any) -> None:
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        if parts[:3] == ["api", "v1", "models"]:
            self._modelscope("/".join(parts[3:5]), parts[5:], parse_qs(url.query))
        elif parts[:2] == ["api", "models"]:
            self._info("/".join(parts[2:4]), parts[4:], parse_qs(url.query))
        elif parts[2:3] == ["resolve"]:
            self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        else:
            self._send(404, b"no such page")

    def _info(self, name: str, rest: list[str], query: Mapping[str, list[str]]) -> None:
        model = self._model(name)
        if model is None:
            return
        if rest[:1] == ["revision"] and not self._has_revision(model, rest[1]):
            return
        siblings = [
            {"rfilename": file} | ({"size": model.size(file)} if "blobs" in query else {}) for file in model.names
        ]
        if rest[:1] == ["tree"]:
            tree = [{"type": "file", "path": file, "size": model.size(file), "oid": "0" * 40} for file in model.names]
            self._json(tree)
        else:
            self._json({"id": name, "sha": COMMIT, "gated": model.gated and "manual", "siblings": siblings})

    def _file(self, name: str, revision: str, file: str) -> None:
        model = self._model(name)
        if model is None or not self._has_revision(model, revision):
            return
        if model.gated and not self._opens(name):
            self._refuse(
                403 if self._token() else 401, code="GatedRepo", message=f"Access to model {name} is restricted"
            )
        elif file not in model.files:
            self._refuse(404, code="EntryNotFound", message="Entry not found")
        elif self.hub.files_at:
            self._send(302, b"", {"Location": self.hub.files_at + self.path})
        else:
            content = model.files[file]
            # As the real hub: the SHA-256 of what it keeps as a large file, else the SHA-1 of the git blob.
            blob = b"blob %d\0" % len(content) + content
            large, small = hashlib.sha256(content), hashlib.sha1(blob, usedforsecurity=False)
            etag = (large if file.endswith(".safetensors") else small).hexdigest()
            self._send(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})

    def _modelscope(self, name: str, rest: list[str], query: Mapping[str, list[str]]) -> None:
        model = self.hub.models.get(name)
        if model is None or query.get("Revision", ["master"])[0] not in ("master", COMMIT):
            self._send(404, json.dumps({"Code": 10010205001, "Message": "Not found", "Success": False}).encode())
        elif rest == ["repo", "files"]:
            files = [{"Path": file, "Name": file, "Type": "blob", "Size": model.size(file)} for file in model.names]
            self._json({"Code": 200, "Success": True, "Data": {"Files": files}})
        elif rest == ["repo"] and query["FilePath"][0] in model.files:
            self._send(200, model.files[query["FilePath"][0]])
        else:
            self._send(404, json.dumps({"Code": 404, "Message": "no such file", "Success": False}).encode())

    def _model(self, name: str) -> Model | None:
        """The requested model; where there is none, or the token may not see it, the refusal is sent."""
        model = self.hub.models.get(name)
        if model is not None and (not model.private or self._opens(name)):
            return model
        if self._token():
            self._refuse(404, code="RepoNotFound", message="Repository not found")
        else:
            self._refuse(401, code="RepoNotFound", message="Invalid username or password.")
        return None

    def _has_revision(self, model: Model, revision: str) -> bool:
        found = revision in (*model.revisions, COMMIT)
        if not found:
            self._refuse(404, code="RevisionNotFound", message=f"Invalid rev id: {revision!r}")
        return found

    def _token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def _token_is_unknown(self) -> bool:
        return bool(self._token()) and self._token() not in self.hub.tokens

    def _opens(self, name: str) -> bool:
        return name in self.hub.tokens.get(self._token(), ())

    def _refuse(self, status: int, *, message: str, code: str = "") -> None:
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self._send(status, json.dumps({"error": message}).encode(), headers)

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
