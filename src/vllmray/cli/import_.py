"""vllmray import"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vllmray.cli.init import FILE, ForceOption, OutputOption, refuse_to_overwrite, say_written, write
from vllmray.cli.options import JsonOption
from vllmray.errors import ConfigError

if TYPE_CHECKING:
    from vllmray.config.compose.folders import Folder

LARGEST = 1024**2
"""Bytes of a file that is read."""


def import_(
    *,
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER", help="Folders of a Docker Compose setup, one a host")
    ],
    hosts: Annotated[
        list[str] | None,
        typer.Option("--host", metavar="ADDRESS", help="Address of a host, one a folder in the same order"),
    ] = None,
    output: OutputOption = Path(FILE),
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make vllmray.toml from a Docker Compose setup.

    It reads .env and the Compose file of each folder (node1/ and node2/). What has no place in the cluster file is
    listed with the reason.
    """
    from vllmray.config.compose.folders import draft_of
    from vllmray.config.render import render

    refuse_to_overwrite(output, force=force)
    draft, notices = draft_of([_folder(path) for path in folders], hosts or [])
    write(output, render(draft))
    if not as_json:
        for notice in notices:
            print(f"not taken over: {notice}", file=sys.stderr)
    say_written("import", output, [host.address for host in draft.hosts], notices, as_json=as_json)


def _folder(path: Path) -> Folder:
    """Its small files, by name."""
    from vllmray.config.compose.folders import ENV, FILES, Folder

    if not path.is_dir():
        raise ConfigError(f"{path} is not a folder", hint="Name the folders of the Compose setup: node1 node2.")
    texts: dict[str, str] = {}
    for file in sorted(path.iterdir()):
        if file.is_file() and file.stat().st_size <= LARGEST and (file.name in (ENV, *FILES) or "env" in file.name):
            try:
                texts[file.name] = file.read_text()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"can't read {file}: {error}") from error
    if not {ENV, *FILES} & texts.keys():
        raise ConfigError(f"{path} has no {ENV} and no Compose file", hint="Name the folders of the Compose setup.")
    return Folder(str(path), texts)
