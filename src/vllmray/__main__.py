"""The `vllmray` command. `--version` answers before anything heavy is imported."""

from __future__ import annotations

import gc
import os
import sys

from vllmray.version import __version__

OBJECTS_BETWEEN_COLLECTIONS = 50_000


def main() -> None:
    """Entry point of the console script."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        print(f"vllmray {__version__}")
        return
    # A tenth of a second of each command: importing makes many objects and little garbage, and pydantic looks through
    # the metadata of every installed package for plugins (pydantic docs, "Plugins"), of which none is used here.
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    from vllmray.cli.main import run

    run(sys.argv[1:])


if __name__ == "__main__":
    main()
