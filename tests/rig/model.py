"""The real model that the tests serve, made as `vllmray demo` makes it."""

from __future__ import annotations

import os
from pathlib import Path

from tests.rig.image import cache_root
from vllmray.config.models import ClusterConfig
from vllmray.demo.model import have_model
from vllmray.hosts.native.host import NativeHost
from vllmray.output.progress import PlainReporter

# What `pip install .[cpu]` gives, without the packages that are built for CUDA: Ray, vLLM, and vllmray itself.
CPU_PYTHON = Path(__file__).parents[2] / ".venv-cpu" / "bin" / "python"


def model_folder() -> Path:
    """Its folder in the cache, created now unless it exists."""
    cache = cache_root() / "vllmray" / "demo"
    config = ClusterConfig(cluster="tests", image=str(CPU_PYTHON))
    return have_model(NativeHost(cache / "state", os.environ), config, cache, PlainReporter())
