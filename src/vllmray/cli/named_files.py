"""Files named by arguments after --: found on this machine, and mounted into the engine's container."""

from __future__ import annotations

from pathlib import Path

from vllmray.cluster.spec.mounts import holder_of, targets
from vllmray.config.explain import Problem, config_error
from vllmray.config.models import ClusterConfig
from vllmray.engine.named_files import OF_THE_IMAGE, Named, is_below, with_paths
from vllmray.payload.probes.model_folder import links_out_of

IN_ITS_PLACE = "give the path of an existing file, a path in the image (/vllm-workspace/examples/…), or --volume"


def with_named_files(config: ClusterConfig, address: str) -> ClusterConfig:
    """The settings with absolute paths, and a volume for each folder that workers read too.

    Args:
        address: of the host; files can be checked only where that is this machine.

    Raises:
        ConfigError: a file does not exist here, or the host is another machine, and no --volume has it.
    """
    files = _Files(config, address)
    args = with_paths(config.vllm_args, files.place)
    if files.problems:
        raise config_error(files.problems)
    further = [volume for volume in dict.fromkeys(files.volumes) if volume not in config.volumes]
    return config.model_copy(update={"vllm_args": args, "volumes": (*config.volumes, *further)})


class _Files:
    """Collects volumes and problems while the arguments are read."""

    def __init__(self, config: ClusterConfig, address: str) -> None:
        self._native = config.runtime == "native"
        self._here = self._native or address.startswith("unix://")
        self._address = address
        self._targets = targets(config)
        self.volumes: list[str] = []
        self.problems: list[Problem] = []

    def place(self, named: Named) -> str:
        """The path to give to vLLM."""
        text = named.path
        if not named.looks_like_a_path and not (self._here and Path(text).is_dir()):
            return text
        if is_below(text, self._targets) and not self._native:
            return text
        try:
            path = Path(text).expanduser().absolute()
        except RuntimeError:  # ~nobody
            path = Path(text)
        if not path.exists() and is_below(text, OF_THE_IMAGE):
            return text
        if not self._here:
            where = text if text.startswith("/") else f"/FOLDER/{path.name}"
            self._refuse(
                named, f"is not on {self._address}", f"copy it there, and give --volume {where}:{where}", where
            )
        elif not path.exists():
            self._refuse(named, "is not on this machine", IN_ITS_PLACE)
        elif named.of_every_node and not self._native:
            self._add(named, path)
        return str(path)

    def _add(self, named: Named, path: Path) -> None:
        holder = holder_of(str(path))
        self.volumes.append(f"{holder}:{holder}")
        outside = links_out_of(path) if path.is_dir() else []
        missing = [folder for folder in outside if not is_below(folder, (*self._targets, holder))]
        if missing:
            wanted = " ".join(f"--volume {folder}:{folder}" for folder in missing)
            self._refuse(named, f"has links to {', '.join(missing)}, which containers do not mount", f"give {wanted}")

    def _refuse(self, named: Named, what: str, fix: str, where: str = "") -> None:
        fix += f" and {named.flag} {where}" if where and where != named.path else ""
        self.problems.append(Problem(f"{named.flag} after --", f"{named.path} {what}", fix))
