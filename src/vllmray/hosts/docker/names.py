"""Names of images as the Docker SDK reads them, and the logins of their registries."""

from __future__ import annotations

from pathlib import Path

from docker.auth import load_config, resolve_repository_name
from docker.utils.config import config_path_from_environment, find_config_file


def login_hint(name: str) -> str:
    """Which login a pull of that image looked for on this machine, and whether there is one."""
    registry = str(resolve_repository_name(split_image_name(name)[0])[0])
    place = Path(str(find_config_file() or config_path_from_environment() or Path.home() / ".docker" / "config.json"))
    known = load_config().resolve_authconfig(registry)
    login = f"login for {registry} in {place}"
    what = f"The {login} was refused" if known else f"There is no {login}"
    return f"{what}: docker login {registry}; or check the image's name."


def split_image_name(name: str) -> tuple[str, str | None]:
    """(repository, tag) as pull takes them; "latest" where neither tag nor digest is given, as with `docker pull`."""
    if "@" in name:
        return name, None
    head, separator, tail = name.rpartition(":")
    return (head, tail) if separator and "/" not in tail else (name, "latest")
