"""vllmray turns plain Linux GPU hosts into one vLLM endpoint."""
