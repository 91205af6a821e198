"""GPUs by name, with their memory as nvidia-smi (memory.total) or the amdgpu driver reports it.

That is a little less than the data sheet's figure where a part of the memory holds error-correcting codes (L4, L40S,
B200). Sources: the vendors' data sheets for the sizes; nvidia-smi's and rocm-smi's published output for the MiB. H100
and H200 were measured for docs/gpu-acceptance.md.
"""

from __future__ import annotations

import re

MIB = 1024**2

MEMORY_MIB = {
    "H100": 81559,
    "H100-NVL": 95830,
    "H200": 143771,
    "A100-40GB": 40960,
    "A100-80GB": 81920,
    "B200": 183359,
    "B300": 275040,
    "GB200": 189471,
    "L4": 23034,
    "L40": 46068,
    "L40S": 46068,
    "A10": 23028,
    "A10G": 23028,
    "A40": 46068,
    "T4": 15360,
    "V100-16GB": 16384,
    "V100-32GB": 32768,
    "RTX-3090": 24576,
    "RTX-4090": 24564,
    "RTX-5090": 32607,
    "RTX-A6000": 49140,
    "RTX-6000-Ada": 49140,
    "RTX-PRO-6000": 97887,
    # Unified memory: of 128 GB Linux shows 121.7 GiB, of which about 2 are in use and 8 are left to the host
    # (cluster/spec/unified.py).
    "GB10": 111 * 1024,
    "MI210": 65520,
    "MI250X": 65520,  # of each of its two dies, which are a device each
    "MI300X": 196592,
    "MI325X": 262128,
    "MI350X": 294896,
    "MI355X": 294896,
}
SEVERAL = {"A100": ("A100-40GB", "A100-80GB"), "V100": ("V100-16GB", "V100-32GB")}
"""Names of GPUs that are sold with different memory sizes."""
_MAKERS = re.compile(r"nvidia|geforce|amd|instinct|rtx|dgxspark|[\s_-]+")


def _key(name: str) -> str:
    """The same for RTX 4090, NVIDIA GeForce RTX 4090 and rtx4090."""
    return _MAKERS.sub("", name.lower().replace("dgx spark", "gb10"))


_BY_KEY = {_key(name): name for name in MEMORY_MIB}


def memory_of(name: str) -> int | None:
    """Bytes of a GPU of that name, in upper or lower case; None for an unknown name.

    Raises:
        ValueError: GPUs of that name have different memory sizes.
    """
    several = {_key(short): names for short, names in SEVERAL.items()}.get(_key(name))
    if several:
        sizes = " or ".join(several)
        raise ValueError(f"{name} comes with different memory sizes: write {sizes}")
    found = _BY_KEY.get(_key(name))
    return MEMORY_MIB[found] * MIB if found else None
