"""Unified memory (GB10, Jetson): how much of the memory that GPU and host share the engine may take; pure.

VLLM counts a share of all the memory there is, and starts when that much is available (payload/probes/gpus.py). The
host's own programs, Ray's and vLLM's live in the same memory. An engine that takes all that is available leaves them
nothing, and a DGX Spark then stops answering.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from vllmray.cluster.spec.sizes import memory_share, options_of
from vllmray.config.models import ClusterConfig
from vllmray.model.memory import GIB
from vllmray.payload.protocol import Card, Swap

FLAG = "--gpu-memory-utilization"
RESERVE = 8 * GIB
"""Bytes of what is available before anything starts that the host keeps: for Ray's and vLLM's own processes (3 GiB were
measured on CPUs: Ray 0.5, the server 0.5, its core 0.5, a worker 1.8), Ray's object store, and the weights' pages while
they are read.
"""
LEAST_SHARE = 0.1


def is_stated(config: ClusterConfig) -> bool:
    """Whether the user sets --gpu-memory-utilization."""
    return "gpu_memory_utilization" in options_of(config).model_fields_set


def share_left(cards: Sequence[Card]) -> float | None:
    """The largest gpu_memory_utilization that leaves RESERVE available, in hundredths; None without unified memory."""
    shares = [(card.free - RESERVE) / card.total for card in cards if card.unified]
    return math.floor(min(shares) * 100) / 100 if shares else None


def kept_share(vllm_args: object) -> float | None:
    """The share that with_share added to the arguments in an engine's label; None if it added none."""
    last = vllm_args[-1] if isinstance(vllm_args, list) and vllm_args else ""
    name, _, value = str(last).partition("=")
    try:
        return float(value) if name == FLAG else None
    except ValueError:
        return None


def with_share(config: ClusterConfig, share: float | None) -> ClusterConfig:
    """The settings with that share, unless the user sets one, or vLLM's default is smaller.

    A share below LEAST_SHARE changes nothing: the check of free memory then fails, with the figures.
    """
    usual = memory_share(config)
    if share is None or usual is None or is_stated(config) or not LEAST_SHARE <= share < usual:
        return config
    return config.model_copy(update={"vllm_args": (*config.vllm_args, f"{FLAG}={share:g}")})


def words(cards: Sequence[Card], config: ClusterConfig) -> str:
    """What is available, and what of it the engine takes; empty without unified memory."""
    share, card = memory_share(config), _tightest(cards)
    if share is None or card is None:
        return ""
    return f"{_available(card)}, the engine takes {_gib(card.total * share)} ({FLAG} {share:g})"


def most_words(cards: Sequence[Card]) -> str:
    """The same on a worker's host: the head's `up` sets what the engine takes."""
    card, best = _tightest(cards), share_left(cards)
    if card is None or best is None:
        return ""
    most = _gib(card.total * best)
    return f"{_available(card)}; the engine can take {most} here ({FLAG} {best:g} with the head's `up`)"


def too_large(cards: Sequence[Card], config: ClusterConfig) -> str:
    """Why the share that the user sets leaves the host too little; empty if it leaves RESERVE, or vLLM refuses it."""
    share, card, best = memory_share(config), _tightest(cards), share_left(cards)
    if share is None or card is None or best is None or not is_stated(config) or share <= best:
        return ""
    left = card.free - card.total * share
    if left < 0:
        return ""
    advice = f"; {FLAG} {best:g} leaves {RESERVE // GIB}" if best >= LEAST_SHARE else ""
    return (
        f"{words(cards, config)}, which leaves {_gib(left)} GiB for Ray, vLLM's own processes and everything else: the "
        f"host may stop answering{advice}"
    )


def refused(cards: Sequence[Card], config: ClusterConfig) -> str:
    """Why vLLM would refuse the share; empty if it would not."""
    share, card, best = memory_share(config), _tightest(cards), share_left(cards)
    if share is None or card is None or best is None or card.total * share <= card.free:
        return ""
    advice = f"; {FLAG} {best:g} leaves the host {RESERVE // GIB}" if best >= LEAST_SHARE else ""
    return f"{words(cards, config)}: vLLM will not start{advice}"


def swap_words(cards: Sequence[Card], swap: Swap | None) -> str:
    """Why swap should be off on this host; empty if it is, or without unified memory."""
    if swap is None or not swap.total or _tightest(cards) is None:
        return ""
    used = f", {_gib(swap.used)} GiB of it in use" if swap.used else ""
    return (
        f"{_gib(swap.total)} GiB of swap are on{used}, and the GPU shares the host's memory: when that runs short, the "
        "host swaps and stops answering instead of ending a process. Turn it off there: sudo swapoff -a"
    )


def _tightest(cards: Sequence[Card]) -> Card | None:
    return min((card for card in cards if card.unified), key=lambda card: card.free / card.total, default=None)


def _available(card: Card) -> str:
    return f"unified memory: {_gib(card.free)} of {_gib(card.total)} GiB are available"


def _gib(size: float) -> str:
    return f"{size / GIB:.1f}"
