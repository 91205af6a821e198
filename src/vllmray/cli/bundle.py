"""`vllmray logs --bundle`: a file for a bug report, without secrets."""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from vllmray.cli.known_secrets import known_secrets
from vllmray.cli.run_log import newest
from vllmray.cli.version import versions
from vllmray.cli.wiring import open_cluster
from vllmray.errors import ConfigError, VllmrayError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vllmray.cli.options import Place
    from vllmray.cluster.observe.bundle import Gathered
    from vllmray.output.results import Bundle


def make_bundle(place: Place, name: str) -> Bundle:
    """Collect what is available, and write it to a new file.

    Args:
        name: of the file; empty for one with the time in its name.

    Raises:
        ConfigError: there is such a file, or it can't be written.
    """
    from vllmray.cluster.observe.bundle import Gathered
    from vllmray.output.results import Bundle
    from vllmray.secrets.redact import redacted

    found = Gathered()
    _of_this_machine(place, found)
    try:
        _of_the_host(place, found)
    except VllmrayError as error:
        found.missing.append(f"host: {error.message}")
    known = known_secrets(["--env-file", str(place.env_file)] if place.env_file else [])
    missing = [redacted(line, known) for line in found.missing]
    texts = {each: redacted(text, known) for each, text in found.files.items()}
    path = Path(name or f"vllmray-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.tar.gz").absolute()
    _write(path, texts | {"missing.txt": "\n".join(missing)})
    return Bundle(str(path), missing)


def _of_this_machine(place: Place, found: Gathered) -> None:
    """Versions, the settings as `up` would take them, and the newest log of a run."""
    from vllmray.config.settings import load, state_folder

    found.files["versions.json"] = json.dumps(asdict(versions()), indent=2)
    found.add("settings/here.json", lambda: load({}, env_file=place.env_file).config.model_dump_json(indent=2))
    for log in newest(state_folder())[:1]:
        found.files["run.log"] = log.read_text(errors="replace")


def _of_the_host(place: Place, found: Gathered) -> None:
    from vllmray.cluster.observe.bundle import gather
    from vllmray.cluster.observe.events import history
    from vllmray.cluster.observe.status import look
    from vllmray.output.envelope import envelope, events_data, status_data

    with open_cluster(place) as about:
        host, cluster = about.host, about.cluster
        found.add("status.json", lambda: envelope("status", status_data(look(host, cluster))))
        found.add(
            "events.json",
            lambda: envelope("events", events_data(cluster, host.address, history(host, cluster, since=None))),
        )
        gather(host, cluster, found)


def _write(path: Path, texts: Mapping[str, str]) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"--bundle: can't write {path}: {error.strerror}", hint="Name a new file.") from error
    folder = path.name.partition(".")[0]
    with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, text in texts.items():
            content = text.encode(errors="replace")
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size, entry.mode, entry.mtime = len(content), 0o600, int(time.time())
            tar.addfile(entry, io.BytesIO(content))
