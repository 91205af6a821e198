"""The settings with which the rig's hosts carry a cluster, as in a user's .env file."""

from __future__ import annotations

from tests.rig.hosts import Rig

# Few sequences and short batches: two cores serve every node of the rig.
ENGINE_FLAGS = ("--", "--max-num-seqs", "8", "--max-num-batched-tokens", "1024")


def base_settings(rig: Rig) -> dict[str, str]:
    """The .env of the Compose setup for SmolLM2 over two hosts with one simulated GPU each, and what the rig needs."""
    return {
        "MODEL_NAME": str(rig.made.model),
        "TENSOR_PARALLEL_SIZE": "1",
        "PIPELINE_PARALLEL_SIZE": "2",
        "MAX_MODEL_LEN": "1024",
        "VLLMRAY_ACCELERATOR": "cpu",
        "VLLMRAY_IMAGE": rig.image,
        "VLLMRAY_SHM_SIZE": "2g",
        "VLLMRAY_OBJECT_STORE_MEMORY": "200m",
        # A container may not raise its limits on every machine that the tests run on.
        "VLLMRAY_MEMLOCK": "default",
        "VLLMRAY_NOFILE": "default",
        "VLLMRAY_ENV": "VLLM_CPU_KVCACHE_SPACE=1,HF_HUB_OFFLINE=1",
    }
