"""Metadata that no file can state: where the project lives, which the forge knows that builds a release."""

from __future__ import annotations

import os
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class ForgeUrls(MetadataHookInterface):
    """`urls`, from the variables that GitHub, Forgejo and Gitea set in every job; none in any other build."""

    def update(self, metadata: dict[str, Any]) -> None:
        server, repository = os.environ.get("GITHUB_SERVER_URL"), os.environ.get("GITHUB_REPOSITORY")
        metadata["urls"] = _urls(f"{server}/{repository}") if server and repository else {}


def _urls(home: str) -> dict[str, str]:
    return {
        "Homepage": home,
        "Documentation": f"{home}/tree/main/docs",
        "Changelog": f"{home}/blob/main/CHANGES.md",
        "Issues": f"{home}/issues",
        "Source": home,
    }
