"""vllmray token"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from vllmray.cli.credentials import StoreKeeper, caller_on, keep_for, kept_secret, secrets_for, store_of
from vllmray.cli.members import board, closing_all, everywhere, members_of
from vllmray.cli.options import JsonOption, Place, with_place
from vllmray.cli.wiring import holder, open_target, reporter
from vllmray.secrets.store import RAY_TOKEN

if TYPE_CHECKING:
    from pathlib import Path

    from vllmray.config.models import ClusterConfig


class TokenAction(StrEnum):
    """What to do with the token."""

    show = "show"
    rotate = "rotate"


@with_place
def token(
    *,
    place: Place,
    action: Annotated[
        TokenAction,
        typer.Argument(metavar="[ACTION]", help="show, or rotate: replace it and restart the head and the engine"),
    ] = (TokenAction.show),
    as_json: JsonOption = False,
) -> None:
    """Print or rotate Ray's authentication token.

    Every node and client of Ray needs it. After a rotation, on the head's host, the head and the engine are restarted
    with the new token, and the workers must join again with it; with a cluster file they do so by themselves.
    """
    from vllmray.config.settings import load
    from vllmray.config.values import LOGINS

    flags = {"cluster": place.cluster, "runtime": place.runtime, "insecure_docker_tcp": place.insecure_docker_tcp}
    loaded = load(flags, env_file=place.env_file, fields=(*flags, *LOGINS))
    config = loaded.config.typed_on(place.host)
    everyone = everywhere(place) if action is TokenAction.rotate else None
    if everyone is not None:
        _rotate_everywhere(everyone.cluster, place.env_file, as_json=as_json)
        return
    if action is TokenAction.rotate:
        _say_rotated(_rotate(place.host or loaded.host, config), as_json=as_json)
        return
    found = kept_secret(config.cluster, RAY_TOKEN, "token")
    if as_json:
        from vllmray.output.envelope import envelope
        from vllmray.output.results import Token

        print(envelope("token", Token(config.cluster, found)))
        return
    print(found)


def _say_rotated(config: ClusterConfig, *, as_json: bool) -> None:
    from vllmray.cluster.spec.commands import token_words, worker_command

    command = f"{worker_command(config)} --recreate"
    if as_json:
        from vllmray.output.envelope import envelope
        from vllmray.output.results import Rotation

        print(envelope("token rotate", Rotation(config.cluster, command)))
        return
    print(f"replaced; {token_words(config)}, on each other host:\n\n    {command}")


def _rotate(address: str | None, config: ClusterConfig) -> ClusterConfig:
    """Replace the token; returns the settings of the head that has the new one."""
    from vllmray.cluster.rotate import rotate
    from vllmray.cluster.run import UpOptions
    from vllmray.config.settings import cache_folder

    report = reporter()
    insecure = config.insecure_docker_tcp
    store = store_of(config.cluster)
    store.get(RAY_TOKEN)  # so that an unusable store is refused before anything is done
    with open_target(address, config.runtime, having=config.cluster, insecure_tcp=insecure) as target:
        options = UpOptions(
            cache=cache_folder() / "images",
            secrets=secrets_for,
            keep=keep_for(config.cluster),
            caller=caller_on(target),
            holder=holder("token rotate"),
        )
        return rotate(target.host, config, target.runtime, options, report, store).config


def _rotate_everywhere(cluster: str, env_file: Path | None, *, as_json: bool) -> None:
    """Replace the token on the head's host, and restart every worker with the new one."""
    from vllmray.cluster.all_hosts import rotate_all
    from vllmray.cluster.phases.base import ClusterRun
    from vllmray.cluster.run import UpOptions
    from vllmray.config.cluster_settings import load_cluster
    from vllmray.config.settings import cache_folder

    loaded = load_cluster({}, env_file=env_file)
    members = members_of(loaded.file, loaded.configs)
    store = store_of(cluster)
    store.get(RAY_TOKEN)  # as above
    options = UpOptions(
        cache=cache_folder() / "images", secrets=secrets_for, keep=keep_for(cluster), holder=holder("token rotate")
    )
    with board() as shown, closing_all(members):
        rotate_all(ClusterRun(members, shown, options, StoreKeeper(cluster)), store)
    if as_json:
        from vllmray.output.envelope import envelope
        from vllmray.output.results import Rotation

        print(envelope("token rotate", Rotation(cluster, "")))
        return
    hosts = ", ".join(member.name for member in members)
    print(f"replaced on {hosts}; `vllmray status` shows when the engine is ready again")
