"""The host's files that containers get because a setting names them; pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vllmray.config.explain import Problem, config_error
from vllmray.config.models import ClusterConfig
from vllmray.engine.named_files import OF_THE_IMAGE, is_below, named_files
from vllmray.hosts.base import Mount

# huggingface_hub 2.4, file_download.py: a snapshot's files are links to ../../blobs.
SNAPSHOT = re.compile(r"(/.*/models--[^/]+)/snapshots/[^/]+/?")


def holder_of(path: str) -> str:
    """The folder to mount for a model's folder: for a snapshot in the hub's cache, the whole repository there."""
    match = SNAPSHOT.fullmatch(path)
    return match[1] if match else path


def model_mount(config: ClusterConfig) -> tuple[Mount, ...]:
    """The model, where it is a folder: at the same path, with what the links of a snapshot lead to."""
    return (_read(holder_of(config.model)),) if config.model_is_a_folder else ()


def targets(config: ClusterConfig) -> list[str]:
    """Folders of a node's containers that are the host's."""
    folders = [volume.split(":")[1] for volume in config.volumes]
    return [*folders, *(mount.target for mount in model_mount(config))]


def engine_mounts(config: ClusterConfig) -> tuple[Mount, ...]:
    """Files that only the engine reads, named by arguments after --, at the same paths."""
    there = targets(config)
    paths = [
        named.path
        for named in named_files(config.vllm_args)
        if named.path.startswith("/") and not named.of_every_node and not is_below(named.path, (*there, *OF_THE_IMAGE))
    ]
    return tuple(_read(path) for path in dict.fromkeys(paths))


def _read(path: str) -> Mount:
    return Mount("bind", path, path, read_only=True)


def check_links(config: ClusterConfig, outside: Sequence[str]) -> None:
    """Refuse a model whose files are links to folders that containers would not have.

    Args:
        outside: those folders.

    Raises:
        ConfigError: it names the volumes that would do.
    """
    missing = [folder for folder in outside if not is_below(folder, targets(config))]
    if config.runtime == "native" or not config.model_is_a_folder or not missing:
        return
    wanted = " ".join(f"--volume {folder}:{folder}" for folder in missing)
    what = f"files of {config.model} are links to {', '.join(missing)}, which containers do not have"
    raise config_error([Problem("--model", what, f"give {wanted}, or the path that readlink -f prints of it")])
