"""vLLM's communicator between CPU workers, corrected for workers on several hosts; importing it imports vLLM.

Apart from slots.py, because vLLM's communicators need the current platform, which is being made there.
"""

from __future__ import annotations

from pathlib import Path

import torch.distributed
from vllm.distributed.device_communicators.cpu_communicator import CpuCommunicator


class CpuSlotCommunicator(CpuCommunicator):  # type: ignore[misc]  # vLLM has no types for mypy to see
    """Takes to shared memory only where the ranks really share some.

    vLLM compares the name of the shared memory alone (vllm 0.32 and 0.33, distributed/device_communicators/
    cpu_communicator.py), which is the same on every host; over two nodes it then fails with "open shm in SHMManager
    failed. errno: 2". Without shared memory it falls back to torch.distributed, as it means to.
    """

    def _all_group_ranks_share_shm_group_name(self) -> bool:
        memories = [""] * self.world_size
        torch.distributed.all_gather_object(memories, shared_memory_identity(), group=self.device_group)
        return len(set(memories)) == 1 and bool(super()._all_group_ranks_share_shm_group_name())


def shared_memory_identity() -> str:
    """Names this process's /dev/shm among all machines: the running kernel, and the file system mounted there."""
    kernel = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{kernel}:{Path('/dev/shm').stat().st_dev}"  # nosec B108 # only its identity is read
