"""What the shell completes: names of clusters, from what is recorded on this machine; no host is asked."""

from __future__ import annotations


def recorded_clusters(incomplete: str) -> list[str]:
    """Clusters that begin so; none where the records can't be read, since a shell has no place for an error."""
    from vllmray.cli.mark import clusters_known_here

    try:
        return [name for name in clusters_known_here() if name.startswith(incomplete)]
    except Exception:  # noqa: BLE001  # as above
        return []
