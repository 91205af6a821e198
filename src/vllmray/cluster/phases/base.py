"""What the phases share: the hosts, the options, and how a phase acts on the hosts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from vllmray.cluster.members import Interruption, Member, all_of
from vllmray.cluster.run import UpOptions
from vllmray.cluster.spec import labels
from vllmray.cluster.spec.contents import Secrets
from vllmray.config.models import ClusterConfig
from vllmray.reporter import Board, Reporter

T = TypeVar("T")


class Keeper(Protocol):
    """The secrets of a cluster on the machine where the command runs."""

    def knows(self, config: ClusterConfig, name: str) -> bool:
        """Whether the settings or this machine have the secret of that name (secrets/store.py)."""

    def with_secrets(self, config: ClusterConfig, role: str) -> ClusterConfig:
        """The settings with the secrets of a node of that role; missing ones are made."""

    def of(self, config: ClusterConfig, role: str) -> Secrets:
        """The secrets for the containers, of settings that have them."""

    def keep(self, secrets: Secrets) -> None:
        """Store them."""


@dataclass(slots=True)
class ClusterRun:
    """One running `up` of all hosts."""

    members: Sequence[Member]
    board: Board
    options: UpOptions
    keeper: Keeper
    share: frozenset[str] = frozenset()
    """What one host gets and the others get from it: image, model."""
    keep_head: bool = False
    """The head and the engine that run are left as they are: only workers were asked for."""
    former: Sequence[Member] = ()
    """Hosts that an earlier `up` started nodes on, and that are not in the cluster file any more."""
    prune: bool = False
    """Remove their nodes."""
    stop: Interruption = field(default_factory=Interruption)

    @property
    def head(self) -> Member:
        """The one with the head."""
        return next(member for member in self.members if member.role == labels.HEAD)

    @property
    def touched(self) -> list[Member]:
        """The hosts whose nodes are started, or brought up to date."""
        return [member for member in self.members if not (self.keep_head and member.role == labels.HEAD)]

    @property
    def workers(self) -> list[Member]:
        """All others."""
        return [member for member in self.members if member.role == labels.WORKER]

    def each(
        self, phase: str, act: Callable[[Member, Reporter], T], members: Sequence[Member] | None = None
    ) -> dict[str, T]:
        """Act on these hosts (None: on all) at once, and return what each gave.

        Raises:
            VllmrayError: at least one failed, after all have ended.
        """
        return all_of(self.members if members is None else members, phase, act, self.board, self.stop)

    def options_for(self, member: Member) -> UpOptions:
        """Of `up` on one host: it returns when its containers run, or a worker that joins alone is listed."""
        return replace(
            self.options,
            wait=self.options.wait and self.keep_head,
            recreate=True,
            whole=True,
            secrets=lambda config: self.keeper.of(config, member.role),
            keep=self.keeper.keep,
            caller=member.caller,
        )


@dataclass(frozen=True, slots=True)
class Phase:
    """One step of `up` over all hosts."""

    title: str
    run: Callable[[ClusterRun], None]
