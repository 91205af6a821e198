"""Which variables of a .env file are passed to the nodes, and which look like the misspelt name of a setting; pure."""

from __future__ import annotations

import re
from collections.abc import Collection
from difflib import SequenceMatcher

# Of programs and libraries that run on nodes; in the caller's own environment they may be for something else.
PREFIXES = (
    *("NCCL_", "RCCL_", "GLOO_", "UCX_", "UCC_", "FI_", "NVSHMEM_"),
    *("VLLM_", "RAY_", "TORCH_", "TORCHINDUCTOR_", "PYTORCH_", "TRITON_", "FLASHINFER_", "LMCACHE_"),
    *("HF_HUB_", "HF_XET_", "MODELSCOPE_", "RUNAI_STREAMER_"),
)
NAMES = (
    *("HF_ENDPOINT", "TRANSFORMERS_OFFLINE", "TP_SOCKET_IFNAME", "OMP_NUM_THREADS", "CUDA_LAUNCH_BLOCKING"),
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_EC2_METADATA_DISABLED"),
)
# Caches and logins of the operator's machine, which nodes do not have: theirs are in MODEL_CACHE_DIR.
NOT_FOR_NODES = re.compile(
    r"(HF|MODELSCOPE|TORCH|TORCHINDUCTOR|TRITON)_([A-Z]+_)*(CACHE|HOME|CACHE_DIR)|MODELSCOPE_CREDENTIALS_PATH"
)
ALIKE = 0.85
"""TENSOR_PARALEL_SIZE, MODEL_NMAE and PIPELINE_PARALLEL reach it; names with another first letter, such as GH_TOKEN,
are not compared.
"""


def is_passed(name: str) -> bool:
    """Whether the nodes get the variable, as with --env."""
    return (name.startswith(PREFIXES) or name in NAMES) and not NOT_FOR_NODES.fullmatch(name)


def resembles(name: str, known: Collection[str]) -> str | None:
    """The known name of which this one looks like a misspelling; None for a name of another program.

    MODEL_NAME_2 is taken for another program's, whose settings are numbered.
    """
    alike = (
        (SequenceMatcher(None, name.upper(), other).ratio(), other) for other in known if name[:1].upper() == other[:1]
    )
    ratio, meant = max(alike, default=(0.0, ""))
    return meant if ratio >= ALIKE and not re.fullmatch(rf"{re.escape(meant)}_?\d+", name.upper()) else None
