"""An image that nodes can run in: pulled where it is missing, with Ray added where it has none, and inspected."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vllmray.cluster.images.build import have_built
from vllmray.cluster.images.pull import ensure_image
from vllmray.cluster.probe.host import check_ray_fits, check_software
from vllmray.cluster.probe.image import inspect
from vllmray.config.models import ClusterConfig
from vllmray.errors import HostError
from vllmray.hosts.base import BuildSpec, Host
from vllmray.images.facts import ImageFacts
from vllmray.images.recipe import RAY_REQUIREMENT, by_hand, derived_dockerfile, derived_name
from vllmray.reporter import Reporter


@dataclass(frozen=True, slots=True)
class Usable:
    """An image that nodes can run in."""

    config: ClusterConfig
    """The settings with that image."""
    facts: ImageFacts
    named: str
    """Its name for the other hosts: they fetch it by that, and add Ray themselves where that is missing."""


def usable_image(host: Host, config: ClusterConfig, reporter: Reporter, *, cache: Path | None, derive: bool) -> Usable:
    """Have an image on the host that has Ray and vLLM.

    Args:
        cache: a folder that caches what images contain.
        derive: add Ray where the image has none; otherwise that is an error.

    Raises:
        HostError: the image can't be pulled or inspected, lacks something, or building it failed.
    """
    if config.build and config.runtime != "native":
        built = have_built(host, config.build, config.accelerator, reporter)
        config = config.model_copy(update={"image": built, "build": None})
    else:
        ensure_image(host, config.image, reporter)
    named = config.image
    facts = inspect(host, config.image, cache)
    # Natively the image is an environment, the user's own: check_software says what it lacks.
    if not facts.ray_command and config.runtime != "native":
        check_ray_fits(host.address, config, facts)
        if not derive:
            raise HostError(
                f"{host.address}: image {config.image} has no Ray",
                hint=f"Leave out --no-derive to have it added, or add it yourself:\n{by_hand(config.image)}",
            )
        config = config.model_copy(update={"image": _with_ray(host, config.image, facts, reporter)})
        facts = inspect(host, config.image, cache)
    check_software(host.address, config, facts)
    return Usable(config, facts, named)


def _with_ray(host: Host, base: str, facts: ImageFacts, reporter: Reporter) -> str:
    """The name of the image made of that base."""
    name = derived_name(facts.identity)
    with reporter.step(f"image with Ray {name}") as step:
        if host.image(name):
            step.result("found")
            return name
        step.event(f"{base} has no Ray: adding {RAY_REQUIREMENT}")
        for line in host.build(BuildSpec(derived_dockerfile(facts.reference, facts.user)), name):
            step.glimpse(line)
        step.result("built")
    return name
