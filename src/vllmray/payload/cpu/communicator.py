"""vLLM's communicator between CPU workers, corrected for workers on several hosts; importing it imports vLLM.

In a module of its own, since vLLM's communicators need the current platform, which slots.py defines.
"""

from __future__ import annotations

from pathlib import Path

import torch.distributed
from vllm.distributed.device_communicators.cpu_communicator import CpuCommunicator


class CpuSlotCommunicator(CpuCommunicator):  # type: ignore[misc]  # vLLM has no types for mypy to see
    """Uses shared memory only where all ranks have the same /dev/shm.

    vLLM compares the name of the shared memory alone (vllm 0.32 and 0.33, distributed/device_communicators/
    cpu_communicator.py), which is the same on every host; over two nodes it then fails with "open shm in SHMManager
    failed. errno: 2". Without shared memory it falls back to torch.distributed, as vLLM intends.
    """

    def _all_group_ranks_share_shm_group_name(self) -> bool:
        memories = [""] * self.world_size
        torch.distributed.all_gather_object(memories, shared_memory_identity(), group=self.device_group)
        return len(set(memories)) == 1 and bool(super()._all_group_ranks_share_shm_group_name())


def shared_memory_identity() -> str:
    """Identifies this process's /dev/shm across hosts: the kernel's boot id and the file system's device number."""
    kernel = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{kernel}:{Path('/dev/shm').stat().st_dev}"  # nosec B108 # only its identity is read
