"""image: pulled or built once, on the head's host, and copied from there to the others."""

from __future__ import annotations

from vllmray.cluster.images.copy import copy_image
from vllmray.cluster.images.derive import usable_image
from vllmray.cluster.members import Member
from vllmray.cluster.phases.base import ClusterRun
from vllmray.reporter import Reporter

TITLE = "image"


def run(up: ClusterRun) -> None:
    """Raises HostError for the hosts that can't have the image."""

    def have(member: Member, reporter: Reporter) -> str:
        options = up.options
        found = usable_image(member.host, member.config, reporter, cache=options.cache, derive=options.derive)
        # A built image has its name from now on: the others get it under that, and nothing is built twice.
        member.config = member.config.model_copy(update={"image": found.named, "build": None})
        return found.named

    containers = [member for member in up.workers if member.config.runtime != "native"]
    if "image" not in up.share or up.head.config.runtime == "native" or not containers:
        up.each(TITLE, have, up.touched)
        return
    named = up.each(TITLE, have, [up.head])[up.head.name]

    def copy(member: Member, reporter: Reporter) -> None:
        copy_image(member.host, [each.host for each in containers], named, reporter)

    up.each(TITLE, copy, [up.head])
    for member in containers:
        member.config = member.config.model_copy(update={"image": named, "build": None})
    up.each(TITLE, have, up.workers)
