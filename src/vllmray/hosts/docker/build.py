"""Building an image through the Engine API, by the classic builder or by BuildKit, whichever the Dockerfile needs.

The Docker SDK supports the classic builder alone, so the call is made here with the SDK's session; BuildKit takes the
same posted context (moby, builder/builder-next/builder.go) without the session that the docker command opens.
"""

from __future__ import annotations

import io
import json
import re
from collections import deque
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any, cast

from docker.auth import encode_header, load_config
from docker.utils import tar

from vllmray.hosts.base import BuildSpec, File
from vllmray.hosts.docker import buildkit
from vllmray.hosts.docker.spec import archive

if TYPE_CHECKING:
    from docker import APIClient

TAIL = 20
DOCKERFILE = "Dockerfile.vllmray"
# What the classic builder's parser (moby) prints for syntax of BuildKit's; it parses the file before the first step.
NEEDS_BUILDKIT = r"requires BuildKit|unknown (?:instruction|flag)"

COLOUR = re.compile("\x1b\\[[0-9;]*m")
"""The classic builder colours what a step writes to its standard error."""


class BuildError(Exception):
    """The build failed; its text ends with the failing step's own output."""


def build(api: APIClient, spec: BuildSpec, tag: str) -> Iterator[str]:
    """The build's output, line by line.

    Raises:
        BuildError: a step failed, or the Dockerfile can't be read.
        docker.errors.APIError, requests.RequestException, OSError: the daemon or the context can't be read.
    """
    try:
        yield from _build(api, spec, tag, version=1)
    except BuildError as error:
        if not re.search(NEEDS_BUILDKIT, str(error), re.IGNORECASE):
            raise
        yield from _build(api, spec, tag, version=2)


def _build(api: APIClient, spec: BuildSpec, tag: str, *, version: int) -> Iterator[str]:
    parameters = {
        "t": tag,
        "dockerfile": DOCKERFILE,
        "buildargs": json.dumps(dict(spec.arguments)),
        "networkmode": "host",
        "rm": "1",
        "forcerm": "1",
        "version": str(version),
    }
    logins = load_config().get_all_credentials()  # type: ignore[no-untyped-call]
    headers = {"Content-Type": "application/x-tar", "X-Registry-Config": encode_header(logins).decode()}
    with _context(spec) as context:
        answer = api.post(
            f"{api.base_url}/v{api.api_version}/build",
            params=parameters,
            data=context,
            headers=headers,
            stream=True,
            timeout=None,  # a step may print nothing for any length of time
        )
    with answer:
        if not answer.ok:
            raise BuildError(refusal(answer))
        said: deque[str] = deque(maxlen=TAIL)
        failed = False
        for entry in _entries(answer.iter_lines()):
            failed = failed or "error" in entry  # the last entry; the stream is read to its end all the same
            for line in _lines(entry):
                said.append(line)
                yield line
    if failed:
        raise BuildError("\n".join(said))


def _entries(lines: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line.strip():
            yield json.loads(line)


def _lines(entry: dict[str, Any]) -> Iterator[str]:
    if entry.get("id") == buildkit.TRACE:
        yield from buildkit.said(entry["aux"])
    else:
        yield from COLOUR.sub("", str(entry.get("stream") or entry.get("error") or "")).splitlines()


def refusal(answer: Any) -> str:
    """The reason in a daemon's error response."""
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError):
        return f"{answer.status_code} {answer.reason}"


def _context(spec: BuildSpec) -> IO[bytes]:
    """A tar of the files that the Dockerfile may copy, and of the Dockerfile."""
    if spec.context is None:
        return io.BytesIO(archive((File(f"/{DOCKERFILE}", spec.dockerfile.encode()),), (0, 0)))
    ignored = spec.context / ".dockerignore"
    lines = ignored.read_text().splitlines() if ignored.is_file() else []
    exclude = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    file = (DOCKERFILE, spec.dockerfile)
    return cast("IO[bytes]", tar(spec.context, exclude=exclude, dockerfile=file, gzip=False))
