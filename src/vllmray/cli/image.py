"""vllmray image …"""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vllmray.cli.options import EnvFileOption, HostOption, InsecureOption, JsonOption, address_of
from vllmray.cli.wiring import open_target, reporter

RuntimeChoice = Annotated[str | None, typer.Option("--runtime", metavar="RUNTIME", help="docker or native")]


def inspect(
    name: Annotated[str, typer.Argument(metavar="IMAGE", help="Image on the host; for the native runtime, a Python")],
    host: HostOption = None,
    runtime: RuntimeChoice = None,
    env_file: EnvFileOption = None,
    insecure_docker_tcp: InsecureOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the versions in an image, its entrypoint and its user.

    The architecture and the versions of Ray, vLLM, Python, torch, CUDA and NCCL are read by a container of the image.
    """
    from vllmray.cluster.probe.image import inspect as ask
    from vllmray.config.settings import cache_folder, load
    from vllmray.output.envelope import envelope
    from vllmray.output.stored_results import ImageContents
    from vllmray.output.tables import image_table, show

    flags = {"runtime": runtime, "insecure_docker_tcp": insecure_docker_tcp}
    loaded = load(flags, env_file=env_file, fields=tuple(flags))
    config = loaded.config
    with open_target(host or loaded.host, config.runtime, insecure_tcp=config.insecure_docker_tcp) as target:
        facts = ask(target.host, str(Path(name)) if target.runtime == "native" else name, cache_folder() / "images")
    if as_json:
        print(envelope("image inspect", ImageContents(**asdict(facts))))
    else:
        show(image_table(name, facts))


def build(  # noqa: PLR0913  # the command line's own breadth
    *,
    dockerfile: Annotated[
        Path | None,
        typer.Option("-f", "--file", metavar="PATH", help="Dockerfile; its folder is the build context"),
    ] = None,
    base: Annotated[str | None, typer.Option(metavar="IMAGE", help="Base image (ARG BASE)")] = None,
    vllm_version: Annotated[
        str | None, typer.Option(metavar="VERSION", help="Version of vLLM (ARG VLLM_VERSION)")
    ] = None,
    ray_version: Annotated[str | None, typer.Option(metavar="VERSION", help="Version of Ray (ARG RAY_VERSION)")] = None,
    pip: Annotated[
        list[str] | None, typer.Option(metavar="PACKAGE", help="Further package to install (ARG PIP)")
    ] = None,
    tag: Annotated[str | None, typer.Option("-t", "--tag", metavar="NAME", help="Name of the image")] = None,
    accelerator: Annotated[
        str | None, typer.Option(metavar="ACCELERATOR", help="Accelerator of the image: nvidia or cpu")
    ] = None,
    host: HostOption = None,
    env_file: EnvFileOption = None,
    insecure_docker_tcp: InsecureOption = None,
    as_json: JsonOption = False,
) -> None:
    """Build an image with vLLM and Ray on a host, and print its name.

    From a Dockerfile of yours, or vllmray's own.
    """
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
    if as_json:
        from vllmray.output.envelope import envelope
        from vllmray.output.stored_results import BuiltImage

        print(envelope("image build", BuiltImage(name)))
        return
    print(name)
    report.note(f"\nUse it here: vllmray up --role head --image {shlex.quote(name)}")
    report.note(f"Give it to other hosts: vllmray image copy {shlex.quote(name)} --to ssh://USER@HOST")


def copy(
    *,
    name: Annotated[
        str | None, typer.Argument(metavar="[IMAGE]", help="Image on the host; without it, the settings' image")
    ] = None,
    to: Annotated[
        list[str],
        typer.Option(
            metavar="HOST",
            help="Docker host to copy it to: ssh://USER@HOST, unix://PATH, tcp://HOST:PORT or an SSH name",
        ),
    ],
    host: HostOption = None,
    env_file: EnvFileOption = None,
    insecure_docker_tcp: InsecureOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy an image from one host to others, without a registry.

    It is streamed from daemon to daemon and read once.
    """
    from contextlib import ExitStack

    from vllmray.cluster.images.build import name_of
    from vllmray.cluster.images.copy import copy_image
    from vllmray.config.settings import load

    flags = {"insecure_docker_tcp": insecure_docker_tcp}
    loaded = load(flags, env_file=env_file, fields=("image", "build", "accelerator", *flags))
    config = loaded.config
    with ExitStack() as stack:
        opened = [
            stack.enter_context(open_target(one, "docker", insecure_tcp=config.insecure_docker_tcp)).host
            for one in (host or loaded.host, *(address_of(name) for name in to))
        ]
        source, *targets = opened
        if name is None and config.build:
            name = name_of(config.build, config.accelerator, source.info().architecture)
        name = name or config.image
        copy_image(source, targets, name, reporter())
    if as_json:
        from vllmray.output.envelope import envelope
        from vllmray.output.stored_results import CopiedImage

        print(envelope("image copy", CopiedImage(name, source.address, [target.address for target in targets])))
