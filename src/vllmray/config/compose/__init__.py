"""A Docker Compose setup of Ray and vLLM, a folder a host, read as the draft of a cluster file."""
