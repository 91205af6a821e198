"""Having the image on a host: found there, or pulled with each layer's progress."""

from __future__ import annotations

from vllmray.hosts.base import Host
from vllmray.reporter import Reporter

LAYER_DONE = ("Pull complete", "Already exists")


def ensure_image(host: Host, name: str, reporter: Reporter) -> None:
    """Returns when the host has the image; raises HostError when it can't be had."""
    with reporter.step(f"image {name}") as step:
        if host.image(name):
            step.result("found")
            return
        step.change("pulling")
        for event in host.pull(name):
            if not event.layer:
                step.change(event.status)
            elif event.status in LAYER_DONE:
                step.part(event.layer, done=1, total=1, status=event.status)
            else:
                step.part(event.layer, done=event.done, total=event.total, status=event.status)
        step.result("pulled")
