"""The platform class that platform.register() names; importing it imports vLLM."""

from __future__ import annotations

from vllm.platforms.cpu import CpuPlatform


class CpuSlotPlatform(CpuPlatform):  # type: ignore[misc]  # vLLM has no types for mypy to see
    """A CPU platform whose device is the GPU slot that Ray counts: each slot runs one vLLM worker on the CPU."""

    ray_device_key = "GPU"
    # Ray blanks CUDA_VISIBLE_DEVICES for a worker with GPUs unless told not to; there is no device to hide here.
    ray_noset_device_env_vars = ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    @classmethod
    def get_device_communicator_cls(cls) -> str:
        return "vllmray.payload.cpu.communicator.CpuSlotCommunicator"
