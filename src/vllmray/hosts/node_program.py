"""The text of node_probe.py for `python3 -c`, where nothing of this package can be imported."""

from __future__ import annotations

import re
from importlib import resources

_IMPORT = re.compile(r"^from vllmray\.hosts\.gpu_probe import .*\n", re.MULTILINE)


def node_program() -> str:
    """The program, with the module that it imports in the place of the import."""
    folder = resources.files("vllmray.hosts")
    # Where it stands now nothing may be imported from the future any more; the program itself begins with that.
    included = folder.joinpath("gpu_probe.py").read_text().replace("from __future__ import annotations\n", "", 1)
    return _IMPORT.sub(lambda _: included, folder.joinpath("node_probe.py").read_text())
