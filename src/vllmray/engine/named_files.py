"""Finds the files and folders in arguments of the vLLM server; pure.

Flags: vllm 0.32, vllm/entrypoints/launchers/cli_args.py, vllm/engine/arg_utils.py and vllm/config.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from vllmray.engine.flags import Given, read_flags

# Flags whose value is always a file or folder, except that --chat-template may be the template itself.
FILES = (
    *("--chat-template", "--tool-parser-plugin", "--reasoning-parser-plugin", "--ssl-ca-certs", "--log-config-file"),
    *("--allowed-local-media-path", "--mm-encoder-fp8-scale-path"),
)
# Flags whose value may also be a model id, or a keyword.
FOLDERS = ("--generation-config", "--tokenizer", "--hf-config-path", "--spec-model", "--lora-modules")
JSON = {"--speculative-config": ("model",), "--default-mm-loras": None}
"""Flags of JSON, with the keys whose values may be folders; None for every key."""
OF_EVERY_NODE = (
    *("--tokenizer", "--hf-config-path", "--spec-model", "--lora-modules", "--speculative-config"),
    *("--default-mm-loras", "--mm-encoder-fp8-scale-path"),
)
"""Flags whose files vLLM's workers read too."""
JINJA = "{}\n"
"""With one of these in the value, vLLM uses it as the template itself (vllm/renderers/hf.py, load_chat_template)."""
OF_THE_IMAGE = ("/vllm-workspace/", "/usr/")
"""Folders that are part of the image: vLLM's own has its examples in /vllm-workspace."""


@dataclass(frozen=True, slots=True)
class Named:
    """A file or folder that an argument names."""

    flag: str
    path: str
    """As in the argument."""
    is_file: bool = False
    """Always a path, never an id or a keyword."""

    @property
    def of_every_node(self) -> bool:
        """Whether workers need it too."""
        return self.flag in OF_EVERY_NODE

    @property
    def looks_like_a_path(self) -> bool:
        """Whether it is a path: by how it begins, where it may also be an id."""
        return self.is_file or self.path.startswith(("/", "./", "../", "~"))


Change = Callable[[Named], str]


def with_paths(vllm_args: Sequence[str], change: Change) -> tuple[str, ...]:
    """The arguments, with each file or folder in them replaced by `change` of it."""
    args: list[str] = []
    at = 0
    for given in read_flags(vllm_args).flags:
        values = tuple(_changed(given, value, change) for value in given.values)
        args += vllm_args[at : given.begin]
        at = given.end
        if values == given.values:
            args += vllm_args[given.begin : given.end]
        elif given.joined:
            args.append(f"{given.typed}={values[0]}")
        else:
            args += (".".join((given.name, *given.keys)), *values)
    return (*args, *vllm_args[at:])


def named_files(vllm_args: Sequence[str]) -> list[Named]:
    """Every file or folder that the arguments name."""
    found: list[Named] = []

    def note(named: Named) -> str:
        found.append(named)
        return named.path

    with_paths(vllm_args, note)
    return found


def _changed(given: Given, value: str, change: Change) -> str:
    name = given.name
    if len(given.names) > 1 or not value:
        return value
    if name in JSON:
        wanted = JSON[name]
        if given.keys:
            return change(Named(name, value)) if wanted is None or given.keys[-1] in wanted else value
        return _in_json(value, wanted, partial(_folder, name, change))
    if name == "--lora-modules" and "{" not in value:
        title, separator, path = value.partition("=")
        return f"{title}={_folder(name, change, path)}" if separator else value
    if name == "--lora-modules":
        return _in_json(value, ("path",), partial(_folder, name, change))
    if name in FILES and not (name == "--chat-template" and set(JINJA) & set(value)):
        return change(Named(name, value, is_file=True))
    return _folder(name, change, value) if name in FOLDERS else value


def _folder(name: str, change: Change, path: str) -> str:
    return change(Named(name, path))


def _in_json(text: str, keys: tuple[str, ...] | None, change: Callable[[str], str]) -> str:
    try:
        table: Any = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(table, dict):
        return text
    changed = {
        key: change(value) if isinstance(value, str) and (keys is None or key in keys) else value
        for key, value in table.items()
    }
    return text if changed == table else json.dumps(changed)


def is_below(path: str, folders: Sequence[str]) -> bool:
    """Whether the path is one of these folders, or in one."""
    return any(path == folder.rstrip("/") or path.startswith(folder.rstrip("/") + "/") for folder in folders)
