"""Knowledge of Ray, and what runs in its containers."""
