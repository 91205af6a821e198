"""secrets: the cluster's own, made where they are missing, or taken over from the head that runs."""

from __future__ import annotations

from pydantic import SecretStr

from vllmray.cluster.members import Member
from vllmray.cluster.phases.base import ClusterRun
from vllmray.cluster.probe.short_lived import exec_to_end
from vllmray.cluster.spec import contents, labels
from vllmray.cluster.state import by_role, usable
from vllmray.reporter import Reporter
from vllmray.secrets.store import API_KEY, RAY_TOKEN, SCRAPE_TOKEN

TITLE = "secrets"
READ_S = 15.0
# Of each secret: the setting, its name in the store, its file in a container, and the container that has it.
SHARED = (
    ("ray_token", RAY_TOKEN, contents.RAY_TOKEN, labels.HEAD),
    ("scrape_token", SCRAPE_TOKEN, contents.SCRAPE_TOKEN, labels.ENGINE),
    ("api_key", API_KEY, contents.API_KEY, labels.ENGINE),
)


def run(up: ClusterRun) -> None:
    """Give the nodes their secrets, all from one place."""
    up.each(TITLE, lambda member, reporter: _secrets(up, member, reporter), [up.head])


def _secrets(up: ClusterRun, head: Member, reporter: Reporter) -> None:
    with reporter.step("secrets") as step:
        found = _running(up, head)
        head.config = up.keeper.with_secrets(head.config.model_copy(update=found), labels.HEAD)
        for member in up.workers:
            member.config = member.config.model_copy(update={"ray_token": head.config.ray_token})
        step.result(f"{', '.join(found)} of the cluster that runs" if found else "of this machine's store")


def _running(up: ClusterRun, head: Member) -> dict[str, SecretStr]:
    """Secrets of the head that runs, which this machine does not have: another one started it.

    Whoever reaches its daemon may read them; a new token would lock out every node.
    """
    running = by_role(head.host, head.config.cluster)
    found: dict[str, SecretStr] = {}
    for field, name, path, role in SHARED:
        container = running.get(role)
        if container and usable(container) and not up.keeper.knows(head.config, name):
            lines = exec_to_end(head.host, container.id, ("cat", path), READ_S)
            if lines and not lines[0].startswith("cat:"):
                found[field] = SecretStr("\n".join(line.strip() for line in lines))
    return found
