"""Every secret that this machine has for vllmray, so that none gets into a log or a bundle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

FILES = ("--token-file", "--api-key-file", "--ssl-keyfile")


def known_secrets(argv: Sequence[str]) -> set[str]:
    """Those in the environment, .env files, files named on the command line, and of every cluster recorded here."""
    from vllmray.config.env_file import parse_env_file
    from vllmray.config.settings import own_environment, state_folder

    environ = own_environment()
    found = set(_named(environ))
    for path in (Path(".env"), *_values(argv, ("--env-file",))):
        found |= set(_named(parse_env_file(_text(path), str(path), environ).values))
    kept = (path for path in state_folder().glob("secrets/*/*") if path.suffix not in (".crt", ".header"))
    for path in (*_values(argv, FILES), *kept):
        found |= {line.strip() for line in _text(path).splitlines() if not line.startswith("-----")}
    return found - {"", "docker"}  # what a mark has, in the same folder (cli/mark.py)


def _named(variables: Mapping[str, str]) -> Iterator[str]:
    """Values of variables that are secrets by their names, each line of one."""
    from vllmray.config.cluster_file import NOT_IN_THE_CLUSTER_FILE
    from vllmray.config.settings import variables_of
    from vllmray.config.values import why_unfit

    ours = {name for field in NOT_IN_THE_CLUSTER_FILE for name in variables_of(field)}
    secret = (value for name, value in variables.items() if name in ours or names_a_secret(name, why_unfit(name)))
    for value in secret:
        yield from value.split()


def names_a_secret(name: str, why: str | None) -> bool:
    """Whether a variable is not allowed on nodes because it is a secret, and not the path of one."""
    return why is not None and not name.endswith(("_FILE", "_PATH", "_MODE", "_IP", "_ADDRESS"))


def _values(argv: Sequence[str], options: Sequence[str]) -> Iterator[Path]:
    for word, after in zip(argv, (*argv[1:], ""), strict=False):
        option, joined, value = word.partition("=")
        if option in options and (value or after):
            yield Path(value if joined else after).absolute()


def _text(path: Path) -> str:
    with suppress(OSError, UnicodeDecodeError, ValueError):
        return path.read_text()
    return ""
