"""Single wheels for the image's Python, which is Debian's own; fetched once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.rig.image import PYTHON, cache_root


def wheel(requirement: str) -> Path:
    """The wheel of "name==version", alone in a folder of the cache."""
    folder = cache_root() / "single-wheels" / requirement
    if not list(folder.glob("*.whl")):
        folder.mkdir(parents=True, exist_ok=True)
        say_version = "import sys; print('%d.%d' % sys.version_info[:2])"
        version = subprocess.run([PYTHON, "-c", say_version], check=True, capture_output=True, text=True).stdout.strip()
        fetch = ["pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--python-version", version]
        subprocess.run([sys.executable, "-m", *fetch, "--dest", str(folder), requirement], check=True)
    (found,) = folder.glob("*.whl")
    return found
