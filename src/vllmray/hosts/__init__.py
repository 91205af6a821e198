"""Places where containers run."""
