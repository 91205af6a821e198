"""vllmray version"""

from __future__ import annotations

from vllmray.cli.options import JsonOption


def version(as_json: JsonOption = False) -> None:
    """Print the versions of vllmray, Python and the Docker SDK."""
    from vllmray.output.envelope import envelope
    from vllmray.versions import versions

    found = versions()
    if as_json:
        print(envelope("version", found))
        return
    for name, number in found.items():
        print(f"{name} {number}")
