"""Inspecting an image: once, in a short-lived container; the answer is cached by the image's id and by a hash of the
program that inspects.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from uuid import uuid4

from pydantic import TypeAdapter, ValidationError

from vllmray.cluster.probe.short_lived import run_to_end
from vllmray.cluster.spec import labels
from vllmray.cluster.spec.contents import PAYLOAD
from vllmray.cluster.spec.payload import contents
from vllmray.cluster.spec.probes import with_program
from vllmray.errors import HostError
from vllmray.hosts.base import ContainerSpec, Host
from vllmray.hosts.facts import Image
from vllmray.images.facts import ImageFacts

PROGRAM = "probes/image.py"
_FACTS = TypeAdapter(ImageFacts)
OWNER = "image-inspect"
"""In the place of a cluster's name, on the container's label."""


def inspect(host: Host, name: str, cache: Path | None) -> ImageFacts:
    """What the image of that name contains.

    Args:
        cache: a folder of this machine for answers; without a usable one the image is inspected each time.

    Raises:
        HostError: the host does not have the image, it is for another architecture, or it could not be inspected.
    """
    image = host.image(name)
    if image is None:
        raise HostError(f"{host.address}: there is no image {name}", hint=f"Get it first: docker pull {name}")
    _refuse_another_architecture(host, name, image)
    if cache is None or not image.fixed:
        return _ask(host, name, image)
    kept = cache / f"{image.id.removeprefix('sha256:')}-{_version()}.json"
    with suppress(OSError, ValidationError):
        return _FACTS.validate_json(kept.read_text())
    facts = _ask(host, name, image)
    with suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
        new = kept.with_suffix(f".{uuid4().hex}")
        new.write_bytes(_FACTS.dump_json(facts))
        new.replace(kept)
    return facts


def _refuse_another_architecture(host: Host, name: str, image: Image) -> None:
    """Where the host could emulate it as well: neither Ray nor vLLM is of use so."""
    if not image.architecture:
        return
    there = host.info().architecture
    if there not in ("", image.architecture):
        raise HostError(
            f"{host.address}: image {name} is for {image.architecture}, and this host is {there}",
            hint=f"Use an image for {there}. If the registry has one under the same name: "
            f"docker pull --platform linux/{there} {name}",
        )


def _why(host: Host, image: Image, lines: list[str]) -> str:
    """What to do about an image that printed that instead of an answer."""
    if any("exec format error" in line.lower() for line in lines):  # the kernel's ENOEXEC, by runc or tini
        there, labelled = host.info().architecture or "unknown", image.architecture or "no architecture"
        return (
            f"Its programs are for another architecture than this host's ({there}), though the image is labelled with "
            f"{labelled}: rebuild it from a base for this host's, or use another image."
        )
    return "It must have a python3 on its PATH, 3.11 or newer."


def _version() -> str:
    """A hash of the program and the fields of its answer: one that another vllmray cached may lack some of them."""
    shape = {each.name: str(each.type) for each in fields(ImageFacts)}
    asked = contents().payload[f"{PAYLOAD}/{PROGRAM}"].decode()
    return hashlib.sha256(f"{asked}\n{shape}".encode()).hexdigest()[:12]


def _ask(host: Host, name: str, image: Image) -> ImageFacts:
    spec = ContainerSpec(
        name=f"vllmray-image-probe-{image.id.removeprefix('sha256:')[:12]}",
        image=name,
        argv=(),
        labels=labels.selector(OWNER, labels.PROBE),
        network="none",
        read_only=True,
    )
    lines = run_to_end(host, with_program(spec, PROGRAM))
    try:
        answer = json.loads(lines[-1])
        reference = next(iter(image.digests), image.id)
        facts = ImageFacts(id=image.id, reference=reference, entrypoint=image.entrypoint, user=image.user, **answer)
        return replace(facts, contents=image.contents)
    except (IndexError, ValueError, TypeError) as error:
        raise HostError(
            f"{host.address}: {name} could not be inspected",
            details="\n".join(lines[-20:]) or "it printed nothing",
            hint=_why(host, image, lines),
        ) from error
