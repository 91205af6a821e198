"""The command line: commands, and the one place where an error becomes text and an exit code."""

from __future__ import annotations

import functools
import importlib
import sys
import textwrap
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, NoReturn, ParamSpec

import typer

from vllmray import __version__
from vllmray.cli.interrupts import arm
from vllmray.cli.wiring import Invocation
from vllmray.errors import ConfigError, UserInterruptError, VllmrayError
from vllmray.secure_files import leave_no_core

P = ParamSpec("P")

INTERNAL_ERROR = 70
COMMANDS = (
    *("plan", "up", "status", "chat", "logs", "events", "restart", "down"),
    *("key", "token", "dashboard", "demo", "image"),
)
"""Each a module of this package with a function of that name, or a group of functions."""
WITH_VLLM_ARGS = ("up", "plan", "demo")
"""Those that take arguments for the vLLM server after --."""
GROUPS = {"image": ("Look at images, build them, give them to other hosts.", ("inspect", "build", "copy"))}


def run(argv: Sequence[str]) -> NoReturn:
    """Run a command line and exit."""
    leave_no_core()
    arm()
    ours, vllm_args = split(argv)
    invocation = Invocation(vllm_args=vllm_args)
    try:
        if "--" in argv:
            refuse_words(command_of(ours), vllm_args)
        application(ours)(args=ours, obj=invocation, prog_name="vllmray")
        sys.exit(0)
    except VllmrayError as error:
        print(text_of(error), file=sys.stderr)
        if invocation.debug:
            traceback.print_exc()
        sys.exit(error.exit_code)
    except KeyboardInterrupt:  # outside of a command, which makes an error of it
        print(text_of(UserInterruptError("interrupted")), file=sys.stderr)
        sys.exit(UserInterruptError.exit_code)
    except BrokenPipeError:
        sys.stderr.close()  # whoever read us left; there is nobody to tell
        sys.exit(1)
    except Exception as error:  # noqa: BLE001  # the last resort: whatever it is, it leaves as one line
        print("\n".join([f"internal error: {type(error).__name__}: {error}", *_notes(error)]), file=sys.stderr)
        if invocation.debug:
            traceback.print_exc()
        else:
            print("hint: run it again with `vllmray --debug …` and report what it prints", file=sys.stderr)
        sys.exit(INTERNAL_ERROR)


def _notes(error: BaseException) -> tuple[str, ...]:
    """What a clean-up could not take back (errors.say_left)."""
    return tuple(getattr(error, "__notes__", ()))


def split(argv: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """(our part, vLLM's part) of a command line, divided at the first --."""
    if "--" not in argv:
        return list(argv), ()
    at = list(argv).index("--")
    return list(argv[:at]), tuple(argv[at + 1 :])


def command_of(ours: Sequence[str]) -> str:
    """The command that is named in our part of a command line; empty when there is none."""
    return next((word for word in ours if not word.startswith("-")), "")


def refuse_words(command: str, vllm_args: Sequence[str]) -> None:
    """Raises ConfigError when there are words after -- that the command has no use for: none is dropped."""
    if not vllm_args or command in WITH_VLLM_ARGS:
        return
    takers = " and ".join([", ".join(WITH_VLLM_ARGS[:-1]), WITH_VLLM_ARGS[-1]])
    name = f"vllmray {command}".strip()
    count = "1 argument is" if len(vllm_args) == 1 else f"{len(vllm_args)} arguments are"
    raise ConfigError(
        f"{name} takes no arguments after --, and {count} there",
        hint=f"After -- are arguments for the vLLM server, which {takers} take. See `{name} --help`.",
    )


def text_of(error: VllmrayError) -> str:
    """An error as it is printed: message, the other program's words, what to do."""
    lines = [f"error: {error.message}"]
    if error.details:
        lines.append(textwrap.indent(error.details, "    "))
    if error.hint:
        lines.append(f"hint: {error.hint}")
    return "\n".join(lines)


def application(ours: Sequence[str]) -> typer.Typer:
    """The commands; only the one that is named, when one is, since each takes its time to be imported."""
    app = typer.Typer(
        help="Turns plain Linux GPU hosts into one vLLM endpoint.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_common)
    named = command_of(ours)
    for name in (named,) if named in COMMANDS else COMMANDS:
        module = importlib.import_module(f"vllmray.cli.{name}")
        if name in GROUPS:
            group = typer.Typer(help=GROUPS[name][0], no_args_is_help=True)
            for each in GROUPS[name][1]:
                group.command()(_interruptible(getattr(module, each)))
            app.add_typer(group, name=name)
        else:
            app.command()(_interruptible(getattr(module, str(name))))
    return app


def _common(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback with each error")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version")] = False,
) -> None:
    context.obj.debug = debug
    if version:
        print(f"vllmray {__version__}")
        raise typer.Exit


def _interruptible(command: Callable[P, None]) -> Callable[P, None]:
    """Ctrl-C as an error of ours: typer would turn it into an abort with exit code 1."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            raise UserInterruptError("interrupted") from None

    return wrapped
