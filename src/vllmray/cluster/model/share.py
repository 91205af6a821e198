"""A model on every host: from a host that has it, or downloaded once, and then from host to host."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import TypeVar

from pydantic import SecretStr

from vllmray.cluster.members import Interruption, Member, all_of, on_each
from vllmray.cluster.model.files import GB, Listing, Progress, fetch, listing, revision_of
from vllmray.cluster.probe.short_lived import remove, start
from vllmray.cluster.spec.model_share import PORT, Transfer, TransferSecrets, share_spec
from vllmray.config.models import ClusterConfig
from vllmray.errors import HostError
from vllmray.hosts.base import Container
from vllmray.reporter import Board, Reporter
from vllmray.secrets.certificate import throwaway

TITLE = "model"
OFFLINE = "HF_HUB_OFFLINE"
"""The variable with which nodes ask the hub for nothing (huggingface_hub, constants.py)."""
T = TypeVar("T")


class ModelShare:
    """One model and the hosts that need it.

    Args:
        members: connected, with the settings of their nodes; the first downloads the model where no host has it.
        addresses: of each host in the cluster's network, by name.
    """

    def __init__(self, members: Sequence[Member], addresses: dict[str, str], board: Board, stop: Interruption) -> None:
        self._members, self._addresses, self._board, self._stop = members, addresses, board, stop

    def run(self) -> str:
        """Have the same revision of the model on every host; returns its commit.

        Raises:
            HostError: the hub refused it; or a host did not get it, by name: the same command continues.
        """
        found = self._listings()
        source = next((member for member in self._members if found[member.name].whole), None)
        if source is None:
            source = self._members[0]
            if OFFLINE in source.config.environment:
                raise HostError(
                    f"no host has {source.config.model}, and {OFFLINE} is set",
                    hint=f"Copy it into {source.config.model_cache_dir} of one host, or unset {OFFLINE}.",
                )
            found[source.name] = self._download(source)
        wanted = found[source.name]
        missing = [member for member in self._members if not _has(found[member.name], wanted)]
        if missing:
            targets = self._without_shared_folders(source, missing)
            if targets:
                self._transfer(source, wanted, targets)
            self._check(wanted, missing)
        return wanted.commit

    def _check(self, wanted: Listing, members: Sequence[Member]) -> None:
        """Every host has the same revision now, before an engine reads it.

        Raises:
            HostError: names the hosts that have not.
        """
        found = self._each(TITLE, lambda member, _: listing(member.host, member.config), members)
        wrong = [name for name, each in found.items() if not _has(each, wanted)]
        if wrong:
            raise HostError(
                f"{', '.join(wrong)}: not the files of revision {wanted.commit[:12]} that the other hosts have",
                hint="Run the same command again; `vllmray model verify` compares every byte.",
            )

    def _each(self, title: str, act: Callable[[Member, Reporter], T], members: Sequence[Member]) -> dict[str, T]:
        return all_of(members, title, act, self._board, self._stop)

    def _listings(self) -> dict[str, Listing]:
        def act(member: Member, reporter: Reporter) -> Listing:
            with reporter.step(f"model {member.config.model}") as step:
                found = listing(member.host, member.config)
                step.result(f"has {found.commit[:12]}, {found.size / GB:.1f} GB" if found.whole else "not there")
            return found

        return self._each(TITLE, act, self._members)

    def _download(self, source: Member) -> Listing:
        def act(member: Member, reporter: Reporter) -> Listing:
            with reporter.step(f"downloading {member.config.model}") as step:
                fetch(member.host, member.config, step)
                found = listing(member.host, member.config)
                if not found.whole:
                    raise HostError(
                        f"{member.host.address}: {member.config.model} has no weights that vLLM could load",
                        hint="Check the repository: it needs config.json and *.safetensors.",
                    )
                step.result(f"{found.size / GB:.1f} GB, {found.commit[:12]}")
            return found

        return self._each(TITLE, act, [source])[source.name]

    def _without_shared_folders(self, source: Member, missing: Sequence[Member]) -> list[Member]:
        """Those that need to be sent something: a folder that several hosts have (NFS) gets the files once."""
        marks = {member.name: secrets.token_hex(8) for member in (source, *missing)}
        everyone = [source, *missing]
        self._each(TITLE, lambda m, _: listing(m.host, m.config, mark=marks[m.name]), everyone)
        seen = self._each(TITLE, lambda m, _: listing(m.host, m.config).marks, everyone)
        self._each(TITLE, lambda m, _: listing(m.host, m.config, unmark=marks[m.name]), everyone)
        served = {marks[source.name]}
        targets = []
        for member in missing:
            if not served & seen[member.name]:
                served.add(marks[member.name])
                targets.append(member)
        return targets

    def _transfer(self, source: Member, wanted: Listing, targets: Sequence[Member]) -> None:
        certificate = throwaway(self._addresses[source.name])
        transfer = Transfer(
            wanted.root,
            wanted.entries,
            _ref(source.config, wanted.commit),
            TransferSecrets(SecretStr(secrets.token_hex(32)), certificate.chain, certificate.key),
        )
        chain = [source, *targets]
        running: dict[str, Container] = {}

        def take(member: Member, reporter: Reporter) -> None:
            number = chain.index(member)
            # The host before it, and where that gives nothing, the source.
            before = [chain[number - 1], source] if number else []
            addresses = dict.fromkeys(self._addresses[each.name] for each in before)
            spec = share_spec(member.config, transfer, self._addresses[member.name], [*addresses])
            running[member.name] = start(member.host, spec)
            if number:
                _follow(member, running[member.name], reporter)

        try:
            self._each(TITLE, take, [source])
            self._each(TITLE, take, targets)
        finally:
            ended = [member for member in chain if member.name in running]
            on_each(
                *(ended, TITLE, lambda member, _: remove(member.host, running[member.name])),
                *(self._board, Interruption()),
            )


def _ref(config: ClusterConfig, commit: str) -> dict[str, str]:
    """The file of the hub's cache that leads from a branch or tag to its commit; none where a commit was asked for."""
    revision = revision_of(config)
    return {} if revision == commit or not commit else {f"refs/{revision}": commit}


def _has(found: Listing, wanted: Listing) -> bool:
    """Whether a host has all files of another one's; it may have more."""
    return found.whole and found.commit == wanted.commit and all(entry in found.entries for entry in wanted.entries)


def _follow(member: Member, container: Container, reporter: Reporter) -> None:
    """Until the host has every file; its program goes on giving them.

    Raises:
        HostError: with the program's own words.
    """
    with reporter.step(f"receiving {member.config.model}") as step:
        progress = Progress(step, member.config.model)
        for line in member.host.logs(container.id, follow=True):
            step.poll()
            found = progress.read(line) or {}
            if found.get("whole"):
                step.result(f"{int(found['total']) / GB:.1f} GB, every digest right")
                return
            if found.get("error"):
                raise _failure(member, str(found["error"]))
        raise _failure(member, "\n".join(progress.tail) or "its program ended without a result")


def _failure(member: Member, words: str) -> HostError:
    return HostError(
        f"{member.name}: {member.config.model} did not come whole",
        details=words,
        hint=f"The hosts connect to each other on TCP port {PORT}. What has come is kept: the same command continues.",
    )
