"""Building an image from a Dockerfile, the user's or vllmray's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vllmray.config.fields import ImageBuild
from vllmray.config.models import Accelerator
from vllmray.errors import ConfigError
from vllmray.hosts.base import BuildSpec, Host
from vllmray.images.dockerfile import copies_files, image_name, own_base, own_dockerfile, without_a_line
from vllmray.reporter import Reporter

# The settings of a build, by the names of the ARG lines that take them.
ARGUMENTS = {"BASE": "base", "VLLM_VERSION": "vllm_version", "RAY_VERSION": "ray_version", "PIP": "pip"}


def build_spec(wanted: ImageBuild, accelerator: Accelerator, architecture: str = "") -> BuildSpec:
    """What to build.

    Args:
        architecture: of the host, as images name it; empty when it is not known.

    Raises:
        ConfigError: the Dockerfile can't be read, or has no line for something that was given.
    """
    path = None if wanted.build is True else Path(wanted.build)
    text = _text(path, accelerator)
    given: dict[str, str | Sequence[str] | None] = {
        argument: getattr(wanted, name) for argument, name in ARGUMENTS.items()
    }
    if path is None and not wanted.base:
        given["BASE"] = own_base(accelerator, architecture)
    arguments = {name: value if isinstance(value, str) else " ".join(value) for name, value in given.items() if value}
    missing = without_a_line(text, arguments)
    if missing:
        raise ConfigError(
            f"{path} has no ARG {', '.join(missing)}",
            hint="Add to it: "
            + ", ".join(f"ARG {name}" for name in missing)
            + "; and use it as ${"
            + missing[0]
            + "}.",
        )
    return BuildSpec(text, arguments, path.absolute().parent if path and copies_files(text) else None)


def _text(path: Path | None, accelerator: Accelerator) -> str:
    if path is None:
        text = own_dockerfile(accelerator)
        if text is None:
            raise ConfigError(
                f"vllmray has no Dockerfile for {accelerator} GPUs",
                hint="Name one with -f, or one of vLLM's own images with --image: Ray is added where it is missing.",
            )
        return text
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"can't read the Dockerfile {path}: {error}", hint="Check its path.") from error


def name_of(wanted: ImageBuild, accelerator: Accelerator, architecture: str) -> str:
    """What the image is called on every host of that architecture. Raises as build_spec does."""
    spec = build_spec(wanted, accelerator, architecture)
    return image_name(spec.dockerfile, spec.arguments)


def have_built(
    host: Host, wanted: ImageBuild, accelerator: Accelerator, reporter: Reporter, *, tag: str | None = None
) -> str:
    """The name of the image on the host, built unless it is there already.

    With files of a context, or with a name of the user's, the daemon is asked each time: it knows what has changed,
    and takes the rest from its own cache.

    Raises:
        ConfigError: see build_spec.
        HostError: the build failed, with the failing step's own output; Docker's build cache keeps the steps before.
    """
    spec = build_spec(wanted, accelerator, host.info().architecture)
    name = tag or image_name(spec.dockerfile, spec.arguments)
    with reporter.step(f"image {name}") as step:
        if not tag and spec.context is None and host.image(name):
            step.result("found")
            return name
        step.event(
            "building: downloads several GB, takes minutes" if wanted.build is True else f"building {wanted.build}"
        )
        for line in host.build(spec, name):
            step.glimpse(line)
        step.result("built")
    return name
