"""Questions to a host, each answered by one short-lived container."""
