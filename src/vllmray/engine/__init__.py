"""Pure knowledge of vLLM's server: its command line, flags, and options."""
