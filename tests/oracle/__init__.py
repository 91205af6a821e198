"""Programs that ask vLLM and transformers themselves, run with the Python of the vLLM environment, not of the tests."""
