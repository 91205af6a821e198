"""vllmray init"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vllmray.cli.members import board, closing_all, member_of
from vllmray.cli.options import EnvFileOption, JsonOption, switch
from vllmray.errors import ConfigError

if TYPE_CHECKING:
    from vllmray.config.cluster_file import HostEntry

FILE = "vllmray.toml"
OutputOption = Annotated[
    Path, typer.Option("--output", "-o", metavar="FILE", help="The file to write; - for standard output")
]
ForceOption = Annotated[bool, switch("--force", help="Overwrite the file")]


def init(  # noqa: PLR0913  # the command line's own breadth
    *,
    hosts: Annotated[
        list[str],
        typer.Option("--hosts", metavar="HOSTS", help="ssh aliases, USER@HOST or Docker addresses; the head first"),
    ],
    model: Annotated[str | None, typer.Option("--model", "-m", metavar="NAME", help="Model to serve")] = None,
    image: Annotated[str | None, typer.Option("--image", metavar="NAME", help="Image with vLLM")] = None,
    cluster: Annotated[str | None, typer.Option("--cluster", metavar="NAME", help="Name of the cluster")] = None,
    output: OutputOption = Path(FILE),
    force: ForceOption = False,
    env_file: EnvFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look at hosts and write vllmray.toml for them.

    Nothing is started or changed there. `vllmray up` in the same folder starts the cluster.
    """
    from vllmray.cluster.survey import draft_of, survey
    from vllmray.config.render import render
    from vllmray.config.settings import load

    refuse_to_overwrite(output, force=force)
    entries = _entries(hosts)
    flags = {"model": model, "image": image, "cluster": cluster}
    config = load(flags, env_file=env_file, fields=("model", "image", "cluster", "insecure_docker_tcp")).config
    members = [member_of(entry, config) for entry in entries.values()]
    with board() as shown, closing_all(members):
        survey(members, shown)
        draft = draft_of(members, {entry.name: named for named, entry in entries.items()})
    write(output, render(draft))
    say_written("init", output, [entry.name for entry in entries.values()], [], as_json=as_json)


def _entries(hosts: list[str]) -> dict[str, HostEntry]:
    """By address as it was typed; the first has the head."""
    from vllmray.config.cluster_file import HostEntry, full_address, short_name

    named = [part.strip() for text in hosts for part in text.split(",") if part.strip()]
    found: dict[str, HostEntry] = {}
    for text in named:
        address = full_address(text)
        if address is None:
            raise ConfigError(f"--hosts: not the address of a host: {text}", hint="For example: --hosts gpu1,gpu2")
        found[text] = HostEntry(short_name(address), address, "worker" if found else "head")
    names = [entry.name for entry in found.values()]
    if not names or len(set(names)) < len(named):
        raise ConfigError("--hosts: each host once, and at least one", hint="For example: --hosts gpu1,gpu2")
    return found


def refuse_to_overwrite(output: Path, *, force: bool) -> None:
    """Raises ConfigError where the file is there already, before anything else is done."""
    if str(output) != "-" and output.exists() and not force:
        raise ConfigError(f"{output} exists", hint="Add --force to overwrite it, or name another with --output.")


def write(output: Path, text: str) -> None:
    """Write the file, or to standard output."""
    if str(output) == "-":
        print(text, end="")
        return
    try:
        output.write_text(text)
    except OSError as error:
        raise ConfigError(f"can't write {output}: {error.strerror}") from error


def say_written(command: str, output: Path, hosts: list[str], notices: list[str], *, as_json: bool) -> None:
    """What was written, and what to do next; not where the text itself went to standard output."""
    if as_json:
        from vllmray.output.envelope import envelope
        from vllmray.output.results import Written

        print(envelope(command, Written(str(output), hosts, notices)))
    elif str(output) != "-":
        count = f"{len(hosts)} host{'' if len(hosts) == 1 else 's'}"
        print(f"wrote {output}: {count}\n\nCheck it, then: vllmray up")
