"""Runs in the head's container in place of `ray`, with its arguments: `ray start --head` without the Ray Client server.

Standard library plus the container's own Ray. Ray starts that server wherever grpcio is installed, and has no option
to disable it (ray 2.60, python/ray/scripts/scripts.py: "has port, no client -> value error"). It runs code for remote
clients, which is not needed here, so the check that looks for grpcio for this one purpose is made to fail. In a version
that checks otherwise the server starts as usual, and requires the token as everything else of Ray does.
"""

from __future__ import annotations

import sys


def main(argv: list[str]) -> None:
    """`ray` with these arguments; does not return."""
    from ray.scripts import scripts

    name = "get_ray_client_dependency_error"
    if hasattr(scripts, name):
        setattr(scripts, name, lambda: ImportError("vllmray disables the Ray Client server"))
    sys.argv = ["ray", *argv]
    scripts.main()


if __name__ == "__main__":
    main(sys.argv[1:])
