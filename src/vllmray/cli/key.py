"""vllmray key"""

from __future__ import annotations

from typing import Annotated

from vllmray.cli.credentials import kept_secret
from vllmray.cli.options import ClusterOption, EnvFileOption, switch
from vllmray.secrets.store import API_KEY, SCRAPE_TOKEN


def key(
    cluster: ClusterOption = None,
    scrape: Annotated[bool, switch("--scrape", help="Print the token for /metrics instead")] = False,
    env_file: EnvFileOption = None,
) -> None:
    """Print the endpoint's API key.

    It is the one that `vllmray up --role head` made or was given, by this user on this machine; several are printed one
    a line.
    """
    from vllmray.config.settings import load

    name = load({"cluster": cluster}, env_file=env_file, fields=("cluster",)).config.cluster
    print(kept_secret(name, SCRAPE_TOKEN if scrape else API_KEY, "key"))
