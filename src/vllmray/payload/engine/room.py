"""Free memory on the GPUs of the engine's own host, before each start of a server.

Standard library only; part of what runs in the engine's container. `up` looks at every node before it starts one; what
filled a GPU since then, only a start of the engine can find. GPUs of other hosts are left to vLLM.
"""

from __future__ import annotations

import math
import time

from vllmray.payload.probes.gpus import cards

GIB = 1024**3
AGAIN_S = 2.0
"""Between two looks while there is too little."""


class Room:
    """What a server must find free (vllm 0.33, vllm/v1/worker/utils.py, request_memory).

    Args:
        accelerator: whose GPUs; empty where none is to be looked at.
        share: of each GPU's memory.
        ranks: on how many of them, from the first on.
    """

    def __init__(self, accelerator: str = "", share: float = 0.0, ranks: int = 0) -> None:
        self._accelerator, self._share, self._ranks = accelerator, share, ranks
        self._looked_at = -math.inf
        self._said: dict[tuple[str, ...], str] = {}
        self._lacking = ""

    def lacking(self) -> str:
        """What is too little, in the words of the first look that found it so; empty when there is enough."""
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
