"""vllmray image …"""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vllmray.cli.options import EnvFileOption, HostOption, InsecureOption, address_of
from vllmray.cli.wiring import open_target, reporter

RuntimeChoice = Annotated[str | None, typer.Option("--runtime", metavar="RUNTIME", help="docker or native")]


def inspect(
    name: Annotated[str, typer.Argument(metavar="IMAGE", help="An image that the host has; natively a Python")],
    host: HostOption = None,
    runtime: RuntimeChoice = None,
    env_file: EnvFileOption = None,
    insecure_docker_tcp: InsecureOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON")] = False,
) -> None:
    """Show what an image holds: Ray, vLLM, Python, torch, CUDA, NCCL, entrypoint, user. Asked of the image itself."""
    from vllmray.cluster.probe.image import inspect as ask
    from vllmray.config.settings import cache_folder, load
    from vllmray.output.envelope import envelope
    from vllmray.output.tables import image_table, show

    flags = {"runtime": runtime, "insecure_docker_tcp": insecure_docker_tcp}
    loaded = load(flags, env_file=env_file, fields=tuple(flags))
    config = loaded.config
    with open_target(host or loaded.host, config.runtime, insecure_tcp=config.insecure_docker_tcp) as target:
        facts = ask(target.host, str(Path(name)) if target.runtime == "native" else name, cache_folder() / "images")
    if as_json:
        print(envelope("image inspect", asdict(facts)))
    else:
        show(image_table(name, facts))


def build(  # noqa: PLR0913  # the command line's own breadth
    *,
    dockerfile: Annotated[
        Path | None,
        typer.Option("-f", "--file", metavar="PATH", help="A Dockerfile of your own; its folder is the context"),
    ] = None,
    base: Annotated[str | None, typer.Option(metavar="IMAGE", help="ARG BASE: the image to start from")] = None,
    vllm_version: Annotated[str | None, typer.Option(metavar="VERSION", help="ARG VLLM_VERSION")] = None,
    ray_version: Annotated[str | None, typer.Option(metavar="VERSION", help="ARG RAY_VERSION")] = None,
    pip: Annotated[list[str] | None, typer.Option(metavar="PACKAGE", help="ARG PIP: a further package")] = None,
    tag: Annotated[str | None, typer.Option("-t", "--tag", metavar="NAME", help="Name of the image")] = None,
    accelerator: Annotated[str | None, typer.Option(metavar="ACCELERATOR", help="nvidia or cpu")] = None,
    host: HostOption = None,
    env_file: EnvFileOption = None,
    insecure_docker_tcp: InsecureOption = None,
) -> None:
    """Build an image with vLLM and Ray on a host, from a Dockerfile of yours or vllmray's own, and print its name."""
    from vllmray.cluster.images.build import have_built
    from vllmray.config.fields import ImageBuild
    from vllmray.config.settings import load

    flags = {"accelerator": accelerator, "insecure_docker_tcp": insecure_docker_tcp}
    loaded = load(flags, env_file=env_file, fields=tuple(flags))
    config = loaded.config
    wanted = ImageBuild(
        build=str(dockerfile) if dockerfile else True,
        base=base,
        vllm_version=vllm_version,
        ray_version=ray_version,
        pip=tuple(pip or ()),
    )
    report = reporter()
    with open_target(host or loaded.host, "docker", insecure_tcp=config.insecure_docker_tcp) as target:
        name = have_built(target.host, wanted, config.accelerator, report, tag=tag)
    print(name)
    report.note(f"\nUse it here: vllmray up --role head --image {shlex.quote(name)}")
    report.note(f"Give it to other hosts: vllmray image copy {shlex.quote(name)} --to ssh://USER@HOST")


def copy(
    *,
    name: Annotated[
        str | None, typer.Argument(metavar="[IMAGE]", help="An image that the host has  [default: the settings' own]")
    ] = None,
    to: Annotated[
        list[str],
        typer.Option(metavar="HOST", help="Docker host to give it to: ssh://…, unix://…, tcp://… or an SSH name"),
    ],
    host: HostOption = None,
    env_file: EnvFileOption = None,
    insecure_docker_tcp: InsecureOption = None,
) -> None:
    """Give an image of one host to others, straight from daemon to daemon: no registry, no file, one reading."""
    from contextlib import ExitStack

    from vllmray.cluster.images.build import name_of
    from vllmray.cluster.images.copy import copy_image
    from vllmray.config.settings import load

    flags = {"insecure_docker_tcp": insecure_docker_tcp}
    loaded = load(flags, env_file=env_file, fields=("image", "build", "accelerator", *flags))
    config = loaded.config
    name = name or (name_of(config.build, config.accelerator) if config.build else config.image)
    with ExitStack() as stack:
        opened = [
            stack.enter_context(open_target(one, "docker", insecure_tcp=config.insecure_docker_tcp)).host
            for one in (host or loaded.host, *(address_of(name) for name in to))
        ]
        source, *targets = opened
        copy_image(source, targets, name, reporter())
