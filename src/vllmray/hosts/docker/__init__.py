"""A Docker daemon as a host: the only place that imports the Docker SDK."""
