"""vllmray model: pull, ls, rm, verify"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from vllmray.cli.members import board, closing_all, members_of
from vllmray.cli.options import EnvFileOption, JsonOption
from vllmray.errors import ConfigError

if TYPE_CHECKING:
    from vllmray.cluster.members import Member
    from vllmray.cluster.model.files import Listing
    from vllmray.cluster.phases.base import ClusterRun
    from vllmray.reporter import Reporter

T = TypeVar("T")

NameArgument = Annotated[
    str | None, typer.Argument(metavar="[MODEL]", help="Hugging Face id; without it, the cluster file's model")
]


def pull(*, model: NameArgument = None, env_file: EnvFileOption = None, as_json: JsonOption = False) -> None:
    """Have a model on every host of the cluster file: downloaded once, then copied from host to host.

    What is there already is not sent; a download or a copy that was broken off is continued.
    """
    from vllmray.cluster.phases.model import share_model

    with _open(model, env_file) as opened:
        share_model(opened.run)
        found = opened.listings(verify=False)
    _say("model pull", opened.model, found, as_json=as_json)


def ls(*, model: NameArgument = None, env_file: EnvFileOption = None, as_json: JsonOption = False) -> None:
    """Show which hosts of the cluster file have a model."""
    with _open(model, env_file) as opened:
        found = opened.listings(verify=False)
    _say("model ls", opened.model, found, as_json=as_json)


def verify(*, model: NameArgument = None, env_file: EnvFileOption = None, as_json: JsonOption = False) -> None:
    """Compare every byte of a model on every host with the hub's digests.

    Exit code 1: a file has changed, or a host does not have the whole model.
    """
    with _open(model, env_file) as opened:
        found = opened.listings(verify=True)
    _say("model verify", opened.model, found, as_json=as_json)
    if not all(each.whole for each in found.values()):
        raise typer.Exit(1)


def rm(
    *,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Hugging Face id")],
    env_file: EnvFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove a model from the model cache of every host of the cluster file."""
    from vllmray.cluster.model.files import remove_model

    with _open(model, env_file) as opened:
        if not opened.is_of_the_hub:
            raise ConfigError(f"{model} is not in a model cache", hint="Remove a folder of yours by hand.")
        removed = opened.each("model rm", lambda member, _: remove_model(member.host, member.config))
    if as_json:
        from vllmray.output.envelope import envelope
        from vllmray.output.stored_results import RemovedModel

        print(envelope("model rm", RemovedModel(model, removed)))
        return
    for name, size in removed.items():
        print(f"{name}: {f'removed {size / 1e9:.1f} GB' if size else 'not there'}")


@dataclass(frozen=True, slots=True)
class _Opened:
    """The hosts, with an image that has the programs."""

    run: ClusterRun

    @property
    def model(self) -> str:
        return self.run.head.config.model

    @property
    def is_of_the_hub(self) -> bool:
        from vllmray.cluster.model.files import is_of_the_hub

        return is_of_the_hub(self.run.head.config)

    def each(self, title: str, act: Callable[[Member, Reporter], T]) -> dict[str, T]:
        """Act on every host at once."""
        return self.run.each(title, act)

    def listings(self, *, verify: bool) -> dict[str, Listing]:
        """What each host has."""
        from vllmray.cluster.model.files import listing

        more = {"verify": True} if verify else {}
        return self.each("model", lambda member, _: listing(member.host, member.config, **more))


@contextmanager
def _open(model: str | None, env_file: Path | None) -> Iterator[_Opened]:
    """Connect to every host of the cluster file, and have the image there."""
    from vllmray.cli.credentials import StoreKeeper
    from vllmray.cli.wiring import holder
    from vllmray.cluster.phases import connect, facts, hosts, image
    from vllmray.cluster.phases.base import ClusterRun
    from vllmray.cluster.run import UpOptions
    from vllmray.config.cluster_settings import load_cluster
    from vllmray.config.settings import cache_folder

    loaded = load_cluster({"model": model}, env_file=env_file)
    if not loaded.file.hosts:
        raise ConfigError(
            f"no hosts: {loaded.file.path} lists none", hint="`vllmray init --hosts gpu1,gpu2` writes one."
        )
    members = members_of(loaded.file, loaded.configs)
    options = UpOptions(cache=cache_folder() / "images", holder=holder("model"))
    with board() as shown, closing_all(members):
        keeper = StoreKeeper(members[0].config.cluster)
        run = ClusterRun(members, shown, options, keeper, share=loaded.file.share)
        for phase in (connect, facts, hosts, image):
            phase.run(run)
        yield _Opened(run)


def _say(command: str, model: str, found: dict[str, Listing], *, as_json: bool) -> None:
    from vllmray.output.stored_results import HostModel, ModelFiles

    rows = [HostModel(name, each.whole, each.commit, each.size, list(each.wrong)) for name, each in found.items()]
    data = ModelFiles(model, rows)
    if as_json:
        from vllmray.output.envelope import envelope

        print(envelope(command, data))
        return
    from vllmray.output.tables import model_table, show

    show(model_table(data))
