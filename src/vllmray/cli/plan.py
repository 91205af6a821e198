"""vllmray plan"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vllmray.cli.options import EnvFileOption, InsecureOption, JsonOption, address_of, switch
from vllmray.cli.wiring import on_runtime, open_target, reporter, settings
from vllmray.errors import ConfigError

if TYPE_CHECKING:
    from vllmray.config.models import ClusterConfig
    from vllmray.model.layouts import HostGpus
    from vllmray.model.model import Model
    from vllmray.reporter import Reporter


TYPED = {"cluster_gpus": "--gpus", "model": "MODEL"}
"""This command's names of settings, where they differ from the options of `up`."""


def plan(  # noqa: PLR0913  # the command line's own breadth
    context: typer.Context,
    *,
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="Hugging Face id or folder; without it, the settings' model")
    ] = None,
    gpus: Annotated[
        str | None,
        typer.Option(metavar="GPUS", help="GPUs of each host, the head's first: 2x80GiB,2xH100,2x80GiB+1xL4"),
    ] = None,
    hosts: Annotated[
        str | None, typer.Option(metavar="HOSTS", help="Docker hosts to read the GPUs of, the head's first: gpu1,gpu2")
    ] = None,
    max_model_len: Annotated[str | None, typer.Option(metavar="LEN", help="Maximum context length in tokens")] = None,
    image: Annotated[str | None, typer.Option(metavar="IMAGE", help="Image to read a host's GPUs from")] = None,
    accelerator: Annotated[
        str | None, typer.Option(metavar="ACCELERATOR", help="Accelerator of the hosts: nvidia or amd")
    ] = None,
    allow_tp_across_hosts: Annotated[
        bool, switch("--allow-tp-across-hosts", help="Allow tensor parallelism across hosts")
    ] = False,
    every: Annotated[bool, switch("--all", help="Show every layout, not only the best few")] = False,
    as_json: JsonOption = False,
    env_file: EnvFileOption = None,
    insecure_docker_tcp: InsecureOption = None,
) -> None:
    """Rank the parallel layouts of a model over GPUs.

    Shows which tensor and pipeline parallel sizes fit, and why the others do not. Nothing is started or downloaded:
    only the model's config and the sizes of its weights are read, and memory is an estimate. Arguments after -- are
    those of the vLLM server. Exit code 1: no layout fits.
    """
    from vllmray.cluster.spec.sizes import ranked

    report = reporter()
    flags = {
        "model": _absolute(model),
        "cluster_gpus": gpus,
        "max_model_len": max_model_len,
        "image": image,
        "accelerator": accelerator,
        "allow_tp_across_hosts": allow_tp_across_hosts or None,
        "vllm_args": context.obj.vllm_args,
        "insecure_docker_tcp": insecure_docker_tcp,
    }
    config = _with_free_sizes(settings(flags, env_file, report, typed=TYPED).config)
    known = _known(config)
    found, config = _places(hosts, config, report)
    layouts = ranked(known, config, found)
    if as_json:
        from vllmray.output.envelope import envelope, plan_data

        print(envelope("plan", plan_data(known, found, layouts, config)))
    else:
        from vllmray.output.plan import plan_table
        from vllmray.output.tables import show

        show(plan_table(known, found, layouts, config, every=every, env_file=str(env_file) if env_file else None))
    if not layouts or layouts[0].rejected:
        raise typer.Exit(1)


def _with_free_sizes(config: ClusterConfig) -> ClusterConfig:
    """The settings without parallel sizes, which are ranked here."""
    return config.model_copy(update={"tensor_parallel_size": 0, "pipeline_parallel_size": 0})


def _known(config: ClusterConfig) -> Model:
    """The model, as it can be read from here."""
    from vllmray.cluster.probe.model import files_here
    from vllmray.cluster.spec.sizes import known_model

    files = files_here(config)
    if files is None:
        raise ConfigError(
            f"no folder {config.model} on this machine", hint="Give the path of a folder, or a model id: ORG/NAME."
        )
    return known_model(files, config)


def _absolute(model: str | None) -> str | None:
    """The absolute path of a folder on this machine; an id unchanged."""
    return str(Path(model).absolute()) if model and Path(model).is_dir() else model


def _places(hosts: str | None, config: ClusterConfig, report: Reporter) -> tuple[Sequence[HostGpus], ClusterConfig]:
    """The hosts with their GPUs, stated or read from the hosts, and the settings for the suggested command."""
    from vllmray.cluster.spec.sizes import stated_hosts
    from vllmray.cluster.spec.unified import with_share

    if config.cluster_gpus and not hosts:
        return stated_hosts(config), config
    found = _looked_at(hosts, config, report)
    config = with_share(config, min((host.share for host in found if host.share is not None), default=None))
    return found, _about(hosts, config, found) if hosts else config


def _about(hosts: str, config: ClusterConfig, found: Sequence[HostGpus]) -> ClusterConfig:
    """The settings for the suggested command, with these hosts and their GPUs."""
    seen = tuple(tuple(each.memory) for each in found)
    config = config.typed_on(address_of(hosts.split(",", maxsplit=1)[0].strip()))
    return config.model_copy(update={"cluster_gpus": seen if len(seen) > 1 else ()})


def _looked_at(hosts: str | None, config: ClusterConfig, report: Reporter) -> Sequence[HostGpus]:
    """The GPUs of these hosts; without hosts those of this machine, for which no image is needed."""
    from vllmray.cluster.probe.gpus import gpus_of

    with ExitStack() as stack:
        if not hosts:
            here = stack.enter_context(open_target(None, "native"))
            return [gpus_of(here.host, on_runtime(config, "native"), report)]
        names = [name.strip() for name in hosts.split(",") if name.strip()]
        opened = [
            stack.enter_context(open_target(address_of(name), "docker", insecure_tcp=config.insecure_docker_tcp)).host
            for name in names
        ]
        return [gpus_of(host, config, report) for host in opened]
