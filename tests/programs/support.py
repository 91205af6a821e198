"""What several of these tests need."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import vllmray


def free_port() -> int:
    """A TCP port on loopback that nobody has at this moment."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def copy_payload(folder: Path) -> Path:
    """What containers get of this package, below a folder in the place of /vllmray; returns where payload/ lies."""
    package, copy = Path(vllmray.__file__).parent, folder / "site/vllmray"
    shutil.copytree(package / "payload", copy / "payload", dirs_exist_ok=True)
    shutil.copy(package / "__init__.py", copy)
    return copy / "payload"
