"""vllmray on real GPUs: what scripts/gpu-acceptance runs. Nothing here runs without two of them, but for --rehearse."""
