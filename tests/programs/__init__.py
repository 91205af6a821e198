"""The programs that run inside containers, run here: child processes, a server on loopback, this machine's network."""
