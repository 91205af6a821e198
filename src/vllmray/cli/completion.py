"""Shell completion: cluster names from the records of this machine; no host is asked."""

from __future__ import annotations


def recorded_clusters(incomplete: str) -> list[str]:
    """Cluster names with that prefix; none if the records can't be read, since a shell can't show an error."""
    from vllmray.cli.mark import clusters_known_here

    try:
        return [name for name in clusters_known_here() if name.startswith(incomplete)]
    except Exception:  # noqa: BLE001  # as above
        return []
