"""The user that containers run as: not root where that can be avoided."""

from __future__ import annotations

from dataclasses import replace

from vllmray.cluster.probe.short_lived import run_to_end
from vllmray.cluster.spec.probes import brief_spec
from vllmray.config.models import ClusterConfig
from vllmray.hosts.base import Host
from vllmray.images.facts import ImageFacts
from vllmray.reporter import Reporter

ROOT = ("", "root", "0", "0:0", "root:root", "0:root")
CAN_RUN = "can run"
# Whether that user may read what nodes need of the image: an environment below /root is closed to others.
QUESTION = f"from importlib.util import find_spec; print({CAN_RUN!r} if find_spec('ray') and find_spec('vllm') else '')"


def with_user(
    host: Host, config: ClusterConfig, facts: ImageFacts, caller: str | None, reporter: Reporter
) -> ClusterConfig:
    """The settings with the containers' user: the one they name, else the image's own, and instead of root the caller.

    Args:
        caller: UID:GID of who types the command, where that means something to the host; None where it does not.
    """
    if config.user or caller is None or facts.user not in ROOT or config.runtime == "native":
        return config
    mine = config.model_copy(update={"user": caller})
    if CAN_RUN in run_to_end(host, replace(brief_spec(mine, ("python3", "-c", QUESTION)), network="none", ip=None)):
        return mine
    reporter.warning(
        f"containers of {config.image} run as root: user {caller} can't read Ray and vLLM there (--user names another)"
    )
    return config
