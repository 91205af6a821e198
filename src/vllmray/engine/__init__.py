"""Knowledge of vLLM, and what runs in its container."""
