"""Settings: read from flags, environment, .env and the cluster file, and validated."""
