"""The settings with which the rig's hosts run a cluster, as in a user's .env file."""

from __future__ import annotations

import os

from tests.rig.hosts import Rig

# Few sequences and short batches: two cores serve every node of the rig.
RAY_TOKEN = "the-rigs-own-token-of-ray-0123456789"
API_KEY = "sk-the-rigs-own-key"
ENGINE_FLAGS = ("--", "--max-num-seqs", "8", "--max-num-batched-tokens", "1024")


def base_settings(rig: Rig) -> dict[str, str]:
    """The .env of the Compose setup for SmolLM2 over two hosts with one simulated GPU each, and what the rig needs."""
    return {
        "MODEL_NAME": str(rig.model),
        "TENSOR_PARALLEL_SIZE": "1",
        "PIPELINE_PARALLEL_SIZE": "2",
        "MAX_MODEL_LEN": "1024",
        "VLLMRAY_ACCELERATOR": "cpu",
        "VLLMRAY_IMAGE": rig.image,
        "VLLMRAY_SHM_SIZE": "2g",
        "VLLMRAY_OBJECT_STORE_MEMORY": "200m",
        # A container may not raise this limit on every machine that the tests run on.
        "VLLMRAY_NOFILE": "default",
        # Stated, so that hosts can be started in any order; test_security.py has those that vllmray makes.
        "VLLMRAY_RAY_TOKEN": RAY_TOKEN,
        "VLLM_API_KEY": API_KEY,
        "VLLMRAY_ENV": ",".join(["VLLM_CPU_KVCACHE_SPACE=1", "HF_HUB_OFFLINE=1", *processor()]),
    }


def processor() -> list[str]:
    """The variable that makes oneDNN compute as on another processor, where the tests' environment sets it."""
    return [f"{name}={os.environ[name]}" for name in ("ONEDNN_MAX_CPU_ISA",) if name in os.environ]
