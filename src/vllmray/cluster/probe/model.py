"""What is known of a model: read here, from its folder or its hub, or on the host, by a short-lived container."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vllmray.cluster.probe.short_lived import run_to_end
from vllmray.cluster.spec.containers import volume_mounts
from vllmray.cluster.spec.mounts import check_links, model_mount
from vllmray.cluster.spec.probes import brief_spec, with_program
from vllmray.cluster.spec.sizes import check_fit, known_model, options_of
from vllmray.config.explain import NamedLayer
from vllmray.config.models import ClusterConfig
from vllmray.errors import ConfigError, HostError
from vllmray.hosts.base import Host
from vllmray.hub.files import HubUnreachableError, ModelFiles, from_folder
from vllmray.hub.read import read_model
from vllmray.model.model import Model, parameters_of
from vllmray.reporter import Reporter


@dataclass(frozen=True, slots=True)
class Look:
    """How much is known of the model so far."""

    model: Model | None = None
    elsewhere: bool = False
    """It is a folder that this machine does not have: it is read on its host, and the settings are checked then."""
    outside: Sequence[str] = ()
    """Folders that links in the model's folder lead to."""
    named: Sequence[NamedLayer] = ()
    """The layers that the settings came from, for their names in errors."""


def look_here(
    config: ClusterConfig, layers: Sequence[NamedLayer], reporter: Reporter, *, lenient: bool = False
) -> Look:
    """The model as far as this machine can see it, with the settings checked against it.

    Args:
        layers: where the settings came from.
        lenient: a hub that gives no answer is a warning.

    Raises:
        ConfigError: there is no such model, or vLLM would refuse the settings for it.
    """
    try:
        files = files_here(config)
    except HubUnreachableError as error:
        if not lenient:
            raise
        reporter.warning(f"the settings are not checked against the model: {error.message}")
        return Look()
    if files is None:
        return Look(elsewhere=True, named=layers)
    model = known_model(files, config)
    check_fit(model, config, layers)
    return Look(model, outside=files.outside, named=layers)


def files_here(config: ClusterConfig) -> ModelFiles | None:
    """What can be read of the model from here; None for a folder that this machine does not have."""
    options = options_of(config)

    def read(name: str, revision: str | None) -> ModelFiles | None:
        return read_model(
            name,
            token=config.hf_token,
            modelscope_token=config.modelscope_api_token,
            cache=Path(config.model_cache_dir),
            environment=config.environment,
            revision=revision,
        )

    files, named = read(config.model, options.revision), options.hf_config_path
    if files is None or not named:
        return files
    other = read(str(Path(named).expanduser().absolute()) if Path(named).expanduser().is_dir() else named, None)
    if other is None:
        raise ConfigError(
            f"--hf-config-path: no folder {named} on this machine",
            hint="Give its path, or skip the check of the model: --no-model-check.",
        )
    return replace(files, config=other.config)


def look_there(host: Host, config: ClusterConfig, look: Look, reporter: Reporter) -> Model | None:
    """The model, read on the host if need be; None when it is not to be checked.

    Raises:
        ConfigError: the folder is incomplete, or vLLM would refuse the settings for this model.
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
            f"{host.address}: the check of {config.model} failed",
            details="\n".join(lines[-20:]) or "it printed nothing",
            hint="Check the folder, or skip this check: --no-model-check.",
        ) from error
    return from_folder(answer, model=config.model, where=f"folder {config.model} on {host.address}")
