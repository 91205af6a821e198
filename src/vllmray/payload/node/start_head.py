"""Runs in the head's container in place of `ray`, with its arguments: `ray start --head`, less the Ray client's server.

Standard library plus the container's own Ray. Ray starts that server wherever grpcio is installed, and has no option
against it (ray 2.60, python/ray/scripts/scripts.py: "has port, no client -> value error"); what runs code for others
is not needed here, so Ray is told that grpcio is not there where it asks for that one purpose. In a version that asks
otherwise the server starts as ever, and wants the token as everything else of Ray does.
"""

from __future__ import annotations

import sys


def main(argv: list[str]) -> None:
    """`ray` with these arguments; does not return."""
    from ray.scripts import scripts

    name = "get_ray_client_dependency_error"
    if hasattr(scripts, name):
        setattr(scripts, name, lambda: ImportError("vllmray starts no server for the Ray client"))
    sys.argv = ["ray", *argv]
    scripts.main()


if __name__ == "__main__":
    main(sys.argv[1:])
