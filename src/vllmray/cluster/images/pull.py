"""Ensure that a host has the image: found there, or pulled with each layer's progress."""

from __future__ import annotations

from vllmray.errors import BrokenConnectionError
from vllmray.hosts.base import Host
from vllmray.reporter import Reporter, Step
from vllmray.wait import Clock, SystemClock

LAYER_DONE = ("Pull complete", "Already exists")
PAUSES_S = (1.0, 2.0, 4.0, 8.0)
"""Before each further try; layers that are there already are not fetched again."""


def ensure_image(host: Host, name: str, reporter: Reporter, clock: Clock | None = None) -> None:
    """Returns when the host has the image; raises HostError when it can't be pulled."""
    clock = clock or SystemClock()
    kind = "environment of" if name.startswith("/") else "image"  # natively the image is a Python
    with reporter.step(f"{kind} {name}") as step:
        if host.image(name):
            step.result("found")
            return
        for pause in (*PAUSES_S, None):
            try:
                _pull(host, name, step)
                break
            except BrokenConnectionError as error:
                if pause is None:
                    raise
                step.event(f"{(error.details or error.message).splitlines()[-1]}; trying again in {pause:g} s")
                clock.sleep(pause)
        step.result("pulled")


def _pull(host: Host, name: str, step: Step) -> None:
    step.change("pulling")
    for event in host.pull(name):
        if not event.layer:
            step.change(event.status)
        elif event.status in LAYER_DONE:
            step.part(event.layer, done=1, total=1, status=event.status)
        else:
            step.part(event.layer, done=event.done, total=event.total, status=event.status)
