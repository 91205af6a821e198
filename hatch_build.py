"""Metadata that no file can state: where the project lives, which the forge knows that builds a release."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)]+)\)")
"""To a file of the repository: whether it is a picture, its text, its path."""


class ForgeMetadata(MetadataHookInterface):
    """`urls`, and `readme` with links that lead somewhere on an index's page too.

    From variables that GitHub, Forgejo and Gitea set in every job. Other builds have no URLs, and the README as it is.
    """

    def update(self, metadata: dict[str, Any]) -> None:
        server, repository = os.environ.get("GITHUB_SERVER_URL"), os.environ.get("GITHUB_REPOSITORY")
        home = f"{server}/{repository}" if server and repository else None
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["urls"] = _urls(home) if home else {}
        metadata["readme"] = {"content-type": "text/markdown", "text": _linked(text, home) if home else text}


def _urls(home: str) -> dict[str, str]:
    return {
        "Homepage": home,
        "Documentation": f"{home}/tree/main/docs",
        "Changelog": f"{home}/blob/main/CHANGES.md",
        "Issues": f"{home}/issues",
        "Source": home,
    }


def _linked(text: str, home: str) -> str:
    def link(found: re.Match[str]) -> str:
        picture, words, path = found.groups()
        return f"{picture}[{words}]({home}/{'raw' if picture else 'blob'}/main/{path})"

    return LINK.sub(link, text)
