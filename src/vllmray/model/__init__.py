"""What follows from a model's config.json: the parallelism it allows, the memory it needs. Pure functions."""
