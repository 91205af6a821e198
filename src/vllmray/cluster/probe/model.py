"""What a host knows of a model: the folder may be there alone, and then a short-lived container reads it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vllmray.cluster.probe.short_lived import run_to_end
from vllmray.cluster.spec.containers import volume_mounts
from vllmray.cluster.spec.mounts import check_links, model_mount
from vllmray.cluster.spec.probes import brief_spec, with_program
from vllmray.cluster.spec.sizes import check_fit, known_model
from vllmray.config.explain import NamedLayer
from vllmray.config.models import ClusterConfig
from vllmray.errors import HostError
from vllmray.hosts.base import Host
from vllmray.hub.files import ModelFiles, from_folder
from vllmray.model.model import Model, parameters_of
from vllmray.reporter import Reporter


@dataclass(frozen=True, slots=True)
class Look:
    """How much is known of the model so far."""

    model: Model | None = None
    elsewhere: bool = False
    """It is a folder that this machine does not have: its host must be asked, and the settings checked then."""
    outside: Sequence[str] = ()
    """Folders that links in the model's folder lead to."""
    named: Sequence[NamedLayer] = ()
    """The layers that the settings came from, for their names in errors."""


def look_there(host: Host, config: ClusterConfig, look: Look, reporter: Reporter) -> Model | None:
    """The model, asked of the host if need be; None when nobody is to look.

    Raises:
        ConfigError: the folder is not whole, or vLLM would refuse the settings for this model.
        HostError: the host does not have the folder.
    """
    if not look.elsewhere:
        check_links(config, look.outside)
        return look.model
    with reporter.step(f"model {config.model}") as step:
        files = _read_on(host, config)
        check_links(config, files.outside)
        model = known_model(files, config)
        check_fit(model, config, look.named)
        step.result(parameters_of(model))
    return model


def _read_on(host: Host, config: ClusterConfig) -> ModelFiles:
    spec = replace(brief_spec(config), mounts=(*model_mount(config), *volume_mounts(config)))
    lines = run_to_end(host, with_program(spec, "probes/model_folder.py", config.model))
    try:
        answer = json.loads(lines[-1])
    except (IndexError, ValueError) as error:
        raise HostError(
            f"{host.address}: the look at {config.model} failed",
            details="\n".join(lines[-20:]) or "it printed nothing",
            hint="Check the folder, or start without the look: --no-model-check.",
        ) from error
    return from_folder(answer, model=config.model, where=f"folder {config.model} on {host.address}")
