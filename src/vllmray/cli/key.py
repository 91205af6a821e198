"""vllmray key"""

from __future__ import annotations

from typing import Annotated

from vllmray.cli.credentials import kept_secret
from vllmray.cli.options import ClusterOption, EnvFileOption, JsonOption, switch
from vllmray.secrets.store import API_KEY, SCRAPE_TOKEN


def key(
    cluster: ClusterOption = None,
    scrape: Annotated[bool, switch("--scrape", help="Print the token for /metrics instead")] = False,
    env_file: EnvFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the endpoint's API key.

    It is the one that `vllmray up --role head` made or was given, by this user on this machine; several are printed one
    a line.
    """
    from vllmray.config.settings import load

    name = load({"cluster": cluster}, env_file=env_file, fields=("cluster",)).config.cluster
    found = kept_secret(name, SCRAPE_TOKEN if scrape else API_KEY, "key")
    if as_json:
        from vllmray.output.envelope import envelope
        from vllmray.output.results import Key

        print(envelope("key", Key(name, found.splitlines())))
        return
    print(found)
