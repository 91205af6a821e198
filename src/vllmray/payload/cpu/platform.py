"""vLLM's CPU platform with GPU slots of Ray: real vLLM over several nodes on machines that have no GPU.

A vLLM platform plugin (entry-point group vllm.platform_plugins; vllm docs, "Plugin System"): a function that returns
the dotted name of a platform class, or None for no effect. VLLM loads it in every process, so it must cost nothing
and stay off unless VLLMRAY_CPU_SLOTS is set; vllmray sets that on the containers of accelerator `cpu`.

vLLM's own CPU platform refuses the Ray executor for one reason only, its empty ray_device_key
(vllm/platforms/cpu.py; vllm/v1/executor/ray_utils.py, "does not support ray").
"""

import os

from vllmray.payload.protocol import CPU_SLOTS_SWITCH


def register() -> str | None:
    """The dotted name of the platform class when the environment variable enables it, else None."""
    if os.environ.get(CPU_SLOTS_SWITCH) != "1":
        return None
    return "vllmray.payload.cpu.slots.CpuSlotPlatform"
