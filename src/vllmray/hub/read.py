"""Reads a model's config and sizes: from a local folder, from the hub's cache, or from the hub."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vllmray.errors import ConfigError
from vllmray.hub.files import WITHOUT, HubUnreachableError, ModelFiles, from_folder
from vllmray.payload.probes import model_folder as folder

if TYPE_CHECKING:
    from pydantic import SecretStr

# huggingface_hub 2.4, utils/_validators.py, validate_repo_id: checked here so that it is known without its import.
MODEL_ID = re.compile(r"(?!.*(--|\.\.|\.git$))(\b[\w\-.]{1,96}\b/)?\b[\w\-.]{1,96}\b", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")
MODELSCOPE_TRUE = ("1", "true")  # vllm 0.32, vllm/envs.py: VLLM_USE_MODELSCOPE


def read_model(
    model: str,
    *,
    token: SecretStr | None,
    cache: Path,
    environment: Mapping[str, str],
    revision: str | None = None,
    modelscope_token: SecretStr | None = None,
) -> ModelFiles | None:
    """The config of a model and the size of its weights, of which none are downloaded; nothing is written either.

    Args:
        model: an id of Hugging Face (of ModelScope with VLLM_USE_MODELSCOPE), or the absolute path of a folder.
        token: what the nodes will use; without one the user's own login is not used either, since they have none.
        cache: MODEL_CACHE_DIR, the nodes' HF_HOME; when it has the complete model, no network is needed.
        environment: the nodes' variables, as the user gives them.
        revision: branch, tag or commit; the default branch without.
        modelscope_token: as token, for ModelScope.

    Returns:
        None for a folder that this machine does not have: the host can be asked with payload/probes/model_folder.py.

    Raises:
        HubUnreachableError: the model is not cached, and the hub does not answer.
        ConfigError: there is no such model, access is denied, or a file is missing.
    """
    if model.startswith("/"):
        path = Path(model)
        return from_folder(folder.look(path), model=model, where=f"folder {model}") if path.is_dir() else None
    if not MODEL_ID.fullmatch(model):
        raise ConfigError(
            f"invalid model id {model!r}",
            hint=f"Write ORG/NAME as on https://huggingface.co/models, or the absolute path of a folder. {WITHOUT}",
        )
    if uses_modelscope(environment):
        from vllmray.hub.modelscope import look

        return look(model, login=modelscope_token, environment=environment, revision=revision)
    return _from_cache_or_hub(model, token=token, cache=cache, environment=environment, revision=revision)


def uses_modelscope(environment: Mapping[str, str]) -> bool:
    """Whether the nodes get models from ModelScope."""
    return environment.get("VLLM_USE_MODELSCOPE", "").strip().lower() in MODELSCOPE_TRUE


def _from_cache_or_hub(
    model: str, *, token: SecretStr | None, cache: Path, environment: Mapping[str, str], revision: str | None
) -> ModelFiles:
    """The hub is asked only for what the cache lacks; a cached config is enough when the hub can't be reached."""
    cached = cached_model(model, hub_cache=cache / "hub", revision=revision or "main")
    if cached and cached.weight_bytes is not None:
        return cached
    from vllmray.hub.huggingface import Hub

    try:
        return Hub(model, token=token, environment=environment, revision=revision).look()
    except HubUnreachableError:
        if cached is None:
            raise
        return cached


def cached_model(model: str, *, hub_cache: Path, revision: str) -> ModelFiles | None:
    """What the hub's cache on this machine has; weight_bytes is None unless the weights are all there.

    Its layout (huggingface_hub 2.4, file_download.py, hf_hub_download) is read without the library, whose import takes
    half a second: models--ORG--NAME/refs/REVISION holds a commit, snapshots/COMMIT has the files.

    Raises:
        ConfigError: the config in there is damaged.
    """
    snapshot = _snapshot(hub_cache / f"models--{model.replace('/', '--')}", revision)
    answer = folder.look(snapshot) if snapshot else {"config": None}
    if answer["config"] is None:
        return None
    found = from_folder(answer | {"problem": None}, model=model, where=f"cache {snapshot}")
    return replace(found, weights="unknown") if found.weights == "none" else found


def _snapshot(repository: Path, revision: str) -> Path | None:
    try:
        commit = revision if COMMIT.fullmatch(revision) else (repository / "refs" / revision).read_text().strip()
    except (OSError, ValueError):  # ValueError: not text, or an invalid file name
        return None
    return repository / "snapshots" / commit if COMMIT.fullmatch(commit) else None
