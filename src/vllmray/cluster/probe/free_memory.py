"""Free memory on a node's GPUs, compared with what the engine needs there, before it is started."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from vllmray.cluster.probe.cards import cards_in, holders_in
from vllmray.cluster.probe.short_lived import run_to_end
from vllmray.cluster.spec import unified
from vllmray.cluster.spec.probes import gpu_probe_spec
from vllmray.cluster.spec.sizes import memory_share
from vllmray.config.models import ClusterConfig
from vllmray.errors import HostError, WaitTimeoutError
from vllmray.hosts.base import Host, Mount
from vllmray.model.memory import GIB
from vllmray.payload.probes.gpus import MIB
from vllmray.payload.protocol import Card, GpuProcess
from vllmray.reporter import Reporter
from vllmray.wait import Clock, NotReady, Ready, wait_until

RELEASE_S = 20.0
"""Ray's workers exit, and the driver frees their memory, seconds after their engine has exited."""
USERS = "/vllmray/users"
LEAST_SHARE = 0.1
"""The hint suggests no gpu_memory_utilization below this."""


@dataclass(frozen=True, slots=True)
class Room:
    """What an engine needs on the GPUs of one node.

    VLLM exits at its start unless each of its GPUs has total x gpu_memory_utilization free, whatever its other options
    for memory are (vllm 0.33, vllm/v1/worker/utils.py, request_memory: "Free memory on device").
    """

    host: Host
    config: ClusterConfig
    ranks: int | None = None
    """How many of the GPUs it takes at most. Ray gives the first ones first (ray 2.60,
    src/ray/common/scheduling/resource_instance_set.cc, TryAllocate); None on a
    worker, which does not know: all.
    """

    def check(self, cards: Sequence[Card], devices: tuple[str, ...]) -> None:
        """Raises HostError that names each GPU with too little free memory, and the processes that hold it.

        Args:
            cards: the node's GPUs; without any, nothing is known and vLLM decides.
            devices: how the host gives them, as gpus.device_access takes it.
        """
        short = self._short(cards)
        if not short:
            return
        holders = self._holders(devices)
        first = short[0]
        more = f", and {len(short) - 1} more" if len(short) > 1 else ""
        raise HostError(
            f"{self.host.address}: too little free memory on {self._name(cards, first)}{more}: "
            f"{_gib(first.free)} of {_gib(first.total)} GiB are free, the engine needs {_gib(self._needed(first))}",
            details="\n".join(line for card in short for line in self._lines(cards, card, holders)),
            hint=self._hint(cards, short),
        )

    def check_again(self, devices: tuple[str, ...], reporter: Reporter, clock: Clock | None = None) -> None:
        """As check, for GPUs that this cluster used until now: wait for the driver to free their memory first."""
        cards = self._ask(devices)
        if not self._short(cards):
            return

        def look(_: float) -> Ready[None] | NotReady:
            nonlocal cards
            cards = self._ask(devices)
            short = self._short(cards)
            return NotReady(f"{_gib(short[0].free)} GiB on {self._name(cards, short[0])}") if short else Ready(None)

        with suppress(WaitTimeoutError), reporter.step("free GPU memory") as step:
            wait_until(look, what="free GPU memory", timeout=RELEASE_S, step=step, poll_interval=1.0, clock=clock)
        self.check(cards, devices)

    @property
    def _where(self) -> str:
        return " with the head's `up` and with this one" if self.ranks is None else ""

    @property
    def _share(self) -> float:
        return memory_share(self.config) or 0.0

    def _needed(self, card: Card) -> int:
        return math.ceil(card.total * self._share)

    def _short(self, cards: Sequence[Card]) -> list[Card]:
        return [card for card in cards[: self.ranks] if card.free < self._needed(card)]

    def _ask(self, devices: tuple[str, ...]) -> tuple[Card, ...]:
        request = json.dumps({"accelerator": self.config.accelerator})
        return cards_in(run_to_end(self.host, gpu_probe_spec(self.config, devices, request)))

    def _holders(self, devices: tuple[str, ...]) -> tuple[GpuProcess, ...]:
        """Asked only after a failure: it takes a container with the host's process namespace and its /etc/passwd."""
        native = self.config.runtime == "native"
        users = "/etc/passwd" if native else USERS
        request = json.dumps({"accelerator": self.config.accelerator, "users": users})
        spec = gpu_probe_spec(self.config, devices, request)
        if not native:
            spec = replace(spec, pid="host", mounts=(*spec.mounts, Mount("bind", "/etc/passwd", USERS, read_only=True)))
        with suppress(HostError):
            return holders_in(run_to_end(self.host, spec))
        return ()

    def _name(self, cards: Sequence[Card], card: Card) -> str:
        """By the name that --gpus gave it: in a container numbers begin at 0 again."""
        ids = self.config.gpus.ids
        return f"GPU {ids[cards.index(card)] if len(ids) == len(cards) else card.id}"

    def _lines(self, cards: Sequence[Card], card: Card, holders: Sequence[GpuProcess]) -> list[str]:
        needed = f"{_gib(self._needed(card))} needed (gpu_memory_utilization {self._share:g})"
        kind = ", memory shared with the host" if card.unified else ""
        head = (
            f"{self._name(cards, card)} ({card.name}{kind}): {_gib(card.free)} of {_gib(card.total)} GiB free, {needed}"
        )
        mine = sorted((each for each in holders if each.gpu == card.uuid), key=lambda each: -(each.memory or 0))
        if not mine:
            return [head, "  the host does not report which processes hold it"]
        return [head, *(f"  {_process(each)}" for each in mine)]

    def _hint(self, cards: Sequence[Card], short: Sequence[Card]) -> str:
        roomy = [card for card in cards if card.free >= self._needed(card)]
        others = [self._name(cards, card).removeprefix("GPU ") for card in roomy]
        left = unified.share_left(short)
        fits = math.floor(min(card.free / card.total for card in short) * 100) / 100 if left is None else left
        ways = ["End the processes that hold it (nvidia-smi lists them)"]
        ways += [f"take other GPUs (--gpus device={','.join(others)})"] if others else []
        less = f"let the engine take less of each (-- --gpu-memory-utilization {fits:g}{self._where})"
        ways += [less] if fits >= LEAST_SHARE else []
        return f"{', or '.join(ways)}."


def _process(holder: GpuProcess) -> str:
    memory = f"{holder.memory // MIB} MiB" if holder.memory is not None else "memory not known"
    return f"pid {holder.pid}, user {holder.user or 'not known'}, {holder.program or 'program not known'}, {memory}"


def _gib(size: int) -> str:
    return f"{size / GIB:.1f}"
