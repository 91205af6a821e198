"""vLLM's own --config FILE, read here, so that its flags are checked like typed ones and no container needs it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vllmray.config.explain import Problem, config_error
from vllmray.engine.argv import flag_conflicts
from vllmray.engine.flags import known, read_flags
from vllmray.errors import ConfigError

FLAG = "--config"
ENDINGS = (".yaml", ".yml")


def with_config_file(vllm_args: Sequence[str]) -> tuple[str, ...]:
    """The arguments with those of the file that --config names in front, where vLLM puts them: typed arguments win.

    Source: vllm 0.32, vllm/utils/argparse_utils.py, _pull_args_from_config. (It overlooks --config=FILE.)

    Raises:
        ConfigError: the file can't be read, or has a flag that vllmray refuses.
    """
    named = [flag for flag in read_flags(vllm_args).flags if flag.names == (FLAG,)]
    if not named:
        return tuple(vllm_args)
    if len(named) > 1 or not named[0].value:
        raise ConfigError("-- --config: give exactly one file", hint="Give it like `-- --config engine.yaml`.")
    file = named[0]
    found = _flags_of(Path(str(file.value)).expanduser())
    problems = flag_conflicts(found)
    if problems:
        parted = (line.partition(": ") for line in problems)
        raise config_error([Problem(f"{file.value} (-- --config)", what, fix) for what, _, fix in parted])
    return (*found, *vllm_args[: file.begin], *vllm_args[file.end :])


def _flags_of(path: Path) -> tuple[str, ...]:
    import yaml  # type: ignore[import-untyped]  # it has no types of its own

    hint = "vLLM takes a file of lines `flag: value`, whose name ends in .yaml or .yml."
    if path.suffix not in ENDINGS:
        raise ConfigError(f"-- --config {path}: not a .yaml or .yml file", hint=hint)
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"-- --config: can't read {path}", details=str(error), hint=hint) from error
    if not isinstance(values, dict):
        raise ConfigError(f"-- --config {path}: not a list of `flag: value` lines", hint=hint)
    return tuple(word for name, value in values.items() for word in _words(str(name), value))


def _words(name: str, value: Any) -> Iterator[str]:
    """One entry as vLLM turns it into arguments (load_config_file there)."""
    off = f"--no-{name}"
    if isinstance(value, bool):
        yield from (f"--{name}",) if value else (off,) if off.replace("_", "-") in known() else ()
    elif isinstance(value, list):
        yield from (f"--{name}", *map(str, value)) if value else ()
    elif isinstance(value, dict):
        yield from (f"--{name}", json.dumps(value))
    else:
        yield from (f"--{name}", str(value))
