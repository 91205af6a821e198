"""model: the same revision on every host, downloaded once and copied from host to host."""

from __future__ import annotations

from vllmray.cluster.members import Member
from vllmray.cluster.model.files import is_of_the_hub
from vllmray.cluster.model.share import OFFLINE, ModelShare
from vllmray.cluster.phases.base import ClusterRun
from vllmray.cluster.probe.host import Question, ask, check, have_cache
from vllmray.cluster.spec import labels
from vllmray.errors import HostError
from vllmray.reporter import Reporter

TITLE = "model"


def run(up: ClusterRun) -> None:
    """Where hosts share it; else each node downloads for itself, or has the folder.

    Raises:
        HostError: a host can't have it; the same command continues.
    """
    if "model" not in up.share or not is_of_the_hub(up.head.config):
        return
    share_model(up)
    for member in (member for member in up.members if OFFLINE not in member.config.environment):
        env = (*member.config.env, f"{OFFLINE}=1")  # every host has it: no node asks the hub for anything
        member.config = member.config.model_copy(update={"env": env})


def share_model(up: ClusterRun) -> str:
    """Have the model on every host; returns the commit."""
    addresses = up.each(TITLE, lambda member, reporter: _prepared(up, member, reporter))
    members = [up.head, *up.workers]
    return ModelShare(members, addresses, up.board, up.stop).run()


def _prepared(up: ClusterRun, member: Member, reporter: Reporter) -> str:
    """The host's address in the cluster's network; the image's user may write into the cache after this."""
    with reporter.step("model cache") as step:
        towards = None if member.role == labels.HEAD else up.head.config.head_ip
        devices = member.info.cdi_devices if member.info else ()
        probe = ask(member.host, member.config, devices, Question(towards=towards))
        check(member.host, member.config, probe)
        have_cache(member.host, member.config, probe)
        if not probe.node_ip:
            raise HostError(f"{member.name}: it has no address that other hosts could reach")
        step.result(f"{member.config.model_cache_dir}, {probe.node_ip}")
    return probe.node_ip
