"""The vLLM plugin that gives a node without GPUs simulated ones."""
