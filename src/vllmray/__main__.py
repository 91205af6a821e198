"""The `vllmray` command. `--version` answers before anything heavy is imported."""

from __future__ import annotations

import sys

from vllmray import __version__


def main() -> None:
    """Entry point of the console script."""
    if sys.argv[1:] == ["--version"]:
        print(f"vllmray {__version__}")
        return
    from vllmray.cli.main import run

    run(sys.argv[1:])


if __name__ == "__main__":
    main()
