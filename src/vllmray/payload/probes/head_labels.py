"""Runs in a short-lived container on a worker's host: prints the labels of the cluster's head node as JSON.

Standard library plus the image's own Ray; its arguments are the address of the GCS and the seconds to try. A GCS
answers before its own node has registered: while there is no node, it is asked again.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

PAUSE_S = 0.1


def head_labels(client: Any, seconds: float) -> dict[str, str]:
    """Labels of the node that Ray reports as the head (GcsNodeInfo, src/ray/protobuf/gcs.proto).

    Raises:
        TimeoutError: no head node is registered within that time.
    """
    deadline = time.monotonic() + seconds
    while True:
        for node in client.get_all_node_info(timeout=seconds).values():
            if node.is_head_node and node.state == node.ALIVE:
                return dict(node.labels)
        if time.monotonic() >= deadline:
            raise TimeoutError(f"no head node has registered within {seconds:g} s")
        time.sleep(PAUSE_S)


def main(address: str, seconds: float) -> None:
    """One line: {"labels": {…}} or {"error": "…"}."""
    try:
        from ray._raylet import GcsClient

        answer: dict[str, Any] = {"labels": head_labels(GcsClient(address=address), seconds)}
    except Exception as error:  # Ray raises many kinds, and other versions may raise any
        answer = {"error": f"{type(error).__name__}: {error}"[:500]}
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
