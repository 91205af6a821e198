"""What a model's config.json says of it: the parallelism it allows, the memory it needs. Pure: value in, value out."""
