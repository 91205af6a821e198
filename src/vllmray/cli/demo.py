"""vllmray demo"""

from __future__ import annotations

import os
import shutil
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vllmray.cli.credentials import access_to, caller_on, client_of, with_secrets
from vllmray.cli.mark import marked
from vllmray.cli.options import JsonOption, switch
from vllmray.cli.wiring import Invocation, holder, on_runtime, open_target, reporter, say_runtime
from vllmray.errors import HostError

if TYPE_CHECKING:
    from vllmray.cli.wiring import Target
    from vllmray.config.models import ClusterConfig
    from vllmray.demo.run import Wanted
    from vllmray.reporter import Reporter


class RuntimeChoice(StrEnum):
    """--runtime"""

    docker = "docker"
    native = "native"


def demo(  # noqa: PLR0913  # the command line's own breadth
    context: typer.Context,
    *,
    runtime: Annotated[
        RuntimeChoice | None, typer.Option(help="Without it, docker, or native on a machine without Docker")
    ] = None,
    python: Annotated[
        str | None, typer.Option(metavar="PYTHON", help="Python with Ray and vLLM, for the native runtime")
    ] = None,
    image: Annotated[
        str | None, typer.Option(metavar="IMAGE", help="Image with Ray and vLLM, for the docker runtime")
    ] = None,
    base: Annotated[
        str | None, typer.Option("--base", metavar="IMAGE", help="Base image to build from, without --image")
    ] = None,
    port: Annotated[int | None, typer.Option(metavar="PORT", help="Port of the endpoint", min=1, max=65535)] = None,
    cluster: Annotated[str, typer.Option(metavar="NAME", help="Name of the cluster")] = "demo",
    remove: Annotated[bool, switch("--remove", help="Remove the cluster at the end")] = False,
    retain: Annotated[bool, switch("--retain", help="Keep the nodes after a failure")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a demo cluster of two nodes on this machine.

    Ray, vLLM and the small model are real; one question is asked. The cluster keeps running, and a
    second demo finds it. Arguments after -- are passed to the vLLM server.
    """
    from vllmray.cli.named_files import with_named_files
    from vllmray.cluster.down import down
    from vllmray.config.settings import load
    from vllmray.demo.run import bring_up

    invocation: Invocation = context.obj
    flags: dict[str, Any] = {"cluster": cluster, "runtime": runtime and runtime.value, "python": python, "image": image}
    flags |= {"port": port, "vllm_args": invocation.vllm_args}
    # A .env file here is about another cluster.
    loaded = load(flags, env_file=Path(os.devnull), fields=tuple(flags))
    report = reporter()
    with open_target(loaded.host, loaded.config.runtime, having=loaded.config.cluster, starts=True) as target:
        say_runtime(target, report)
        _refuse_elsewhere(target)
        config = with_named_files(on_runtime(loaded.config, target.runtime), target.host.address)
        wanted = _wanted(config, target, image, base=base, port=port, retain=retain)
        with marked(target.host, target.runtime, config.cluster):
            config = bring_up(target.host, wanted, report)
            try:
                answer = _ask(config, report, quiet=as_json)
            finally:
                if remove:
                    down(target.host, config.cluster, report, holder=wanted.holder)
    if as_json:
        from vllmray.demo.run import QUESTION
        from vllmray.output.envelope import envelope
        from vllmray.output.results import Demo

        found = Demo(config.cluster, target.runtime, access_to(config).url, QUESTION, answer, removed=remove)
        print(envelope("demo", found))
    elif not remove:
        print(_next(config))


def _wanted(
    config: ClusterConfig, target: Target, image: str | None, *, base: str | None, port: int | None, retain: bool
) -> Wanted:
    from vllmray.config.settings import cache_folder
    from vllmray.demo.run import Wanted

    return Wanted(
        cluster=config.cluster,
        runtime=target.runtime,
        image=image if target.runtime == "docker" else config.image,
        base=base,
        port=port,
        cache=cache_folder() / "demo",
        with_secrets=lambda config: with_secrets(config, "head"),
        vllm_args=config.vllm_args,
        volumes=config.volumes,
        caller=caller_on(target),
        retain=retain,
        holder=holder("demo"),
    )


def _refuse_elsewhere(target: Target) -> None:
    if target.runtime == "docker" and not target.host.address.startswith("unix://"):
        raise HostError(
            f"the demo runs on this machine only, and Docker's address is {target.host.address}",
            hint="Unset DOCKER_HOST (or `docker context use default`), or give --runtime native.",
        )


def _ask(config: ClusterConfig, report: Reporter, *, quiet: bool) -> str:
    """One question, its answer as it comes unless quiet; a warning where it is not the expected one."""
    from vllmray.demo.run import QUESTION

    endpoint = client_of(config.cluster, access_to(config).url)
    pieces: list[str] = []
    try:
        if not quiet:
            print(f"\n> {QUESTION}")
        for piece in endpoint.answer(
            endpoint.model(), [{"role": "user", "content": QUESTION}], max_tokens=50, greedy=True
        ):
            pieces.append(piece)
            if not quiet:
                print(piece, end="", flush=True)
        if not quiet:
            print("\n", flush=True)
    finally:
        endpoint.close()
    doubt = doubt_of("".join(pieces))
    if doubt:
        report.warning(doubt)
    return "".join(pieces)


def doubt_of(answer: str) -> str | None:
    """A warning in one line if the answer is not the expected one, else None."""
    from vllmray.demo.run import EXPECTED

    if EXPECTED in answer:
        return None
    return (
        f"unexpected answer without {EXPECTED!r}, which this model gives on every processor: check this machine, its "
        "vLLM and the arguments after --"
    )


def _next(config: ClusterConfig) -> str:
    name, command = config.cluster_option, _own_name(sys.argv[0])
    return f"""\
endpoint {access_to(config).url} is ready; next commands:

    {command} chat{name}
    {command} status{name}
    {command} logs{name} -f
    {command} key{name}
    {command} down{name}"""


def _own_name(called: str) -> str:
    """How to call this command: by its name if that is on the PATH, else by its full path."""
    here = Path(called).absolute()
    return here.name if Path(shutil.which(here.name) or "") == here else str(here)
