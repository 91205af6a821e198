"""Free memory on the GPUs of the engine's own host, before each start of a server.

Standard library only; part of what runs in the engine's container. `up` checks each node before it starts it; memory
that was allocated since then is only noticed here. GPUs of other hosts are left to vLLM's own check.
"""

from __future__ import annotations

import math
import time

from vllmray.payload.probes.gpus import cards

GIB = 1024**3
AGAIN_S = 2.0
"""Between two checks while too little is free."""


class Room:
    """The GPU memory that a server requires to be free (vllm 0.33, vllm/v1/worker/utils.py, request_memory).

    Args:
        accelerator: of the GPUs to check; empty for no check.
        share: the fraction of each GPU's memory that must be free.
        ranks: how many GPUs to check, from the first on.
    """

    def __init__(self, accelerator: str = "", share: float = 0.0, ranks: int = 0) -> None:
        self._accelerator, self._share, self._ranks = accelerator, share, ranks
        self._looked_at = -math.inf
        self._said: dict[tuple[str, ...], str] = {}
        self._lacking = ""

    def lacking(self) -> str:
        """Which GPUs lack memory, with the numbers of the first check that found these; empty when there is enough."""
        if not self._accelerator or (self._lacking and time.monotonic() < self._looked_at + AGAIN_S):
            return self._lacking
        found = cards(self._accelerator)[: self._ranks]
        self._looked_at = time.monotonic()
        short = [card for card in found if card["free"] < math.ceil(card["total"] * self._share)]
        names = tuple(card["id"] for card in short)
        words = "; ".join(
            f"GPU {card['id']} has {card['free'] / GIB:.1f} of {card['total'] / GIB:.1f} GiB free, "
            f"{card['total'] * self._share / GIB:.1f} are needed"
            for card in short
        )
        said = f"too little free memory: {words}" if short else ""
        self._said = {names: self._said.get(names, said)}
        self._lacking = self._said[names]
        return self._lacking
