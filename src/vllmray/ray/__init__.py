"""Pure knowledge of Ray: its command lines, environment, ports, and status."""
