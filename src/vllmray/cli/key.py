"""vllmray key"""

from __future__ import annotations

from typing import Annotated

import typer

from vllmray.cli.credentials import kept_secret
from vllmray.cli.options import ClusterOption, EnvFileOption
from vllmray.secrets.store import API_KEY, SCRAPE_TOKEN


def key(
    cluster: ClusterOption = None,
    scrape: Annotated[bool, typer.Option("--scrape", help="The token for /metrics instead")] = False,
    env_file: EnvFileOption = None,
) -> None:
    """Print the endpoint's API key, as this user's `vllmray up --role head` made or took it; several, one a line."""
    from vllmray.config.settings import load

    name = load({"cluster": cluster}, env_file=env_file, fields=("cluster",)).config.cluster
    print(kept_secret(name, SCRAPE_TOKEN if scrape else API_KEY, "key"))
