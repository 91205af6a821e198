"""vllmray turns plain Linux GPU hosts into one vLLM endpoint."""

__version__ = "0.1.0"
