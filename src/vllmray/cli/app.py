"""The commands as one Typer application: their groups, the options that all of them have, the overview."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Sequence
from keyword import iskeyword
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from vllmray.cli.options import DebugOption, JsonOption, shown_as
from vllmray.errors import UserInterruptError
from vllmray.version import __version__

PANELS = {
    "Serve": ("init", "import", "plan", "up", "restart", "down", "demo"),
    "Observe": ("status", "logs", "events", "dashboard"),
    "Use": ("chat", "key", "token"),
    "Maintain": ("model", "image", "version"),
}
"""The commands by group. Each is a module of this package with a function of that name, or a group of functions."""
COMMANDS = tuple(name for names in PANELS.values() for name in names)
GROUPS = {
    "model": ("Pull, list, verify and remove models on all hosts.", ("pull", "ls", "verify", "rm")),
    "image": ("Inspect, build and copy images.", ("inspect", "build", "copy")),
}


class Command(TyperCommand):
    """A command; its --help shows no type for --help itself."""

    def get_help_option(self, ctx: Any) -> TyperOption | None:
        """--help, without the type that Typer shows for an option that has no value."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.metavar = ""
        return option


class Overview(TyperGroup):
    """The top-level help: an overview that fits a terminal of 24 lines."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """One line for each command, and one with the options."""
        self.format_usage(ctx, formatter)
        formatter.write(f"{self.help}\n\n")
        shown = ""
        for command in (self.commands[name] for name in COMMANDS if name in self.commands):
            panel = next(panel for panel, names in PANELS.items() if command.name in names)
            summary = (command.help or "").partition("\n\n")[0]
            formatter.write(f"{panel if panel != shown else '':<10}{command.name:<11}{' '.join(summary.split())}\n")
            shown = panel
        options = [min(option.opts, key=len) for option in self.get_params(ctx)]
        formatter.write(f"\nOptions: {' '.join(options)}\nFor one command: vllmray COMMAND --help\n")


def command_of(ours: Sequence[str]) -> str:
    """The name of the command, from the arguments before --; empty without one."""
    return next((word for word in ours if not word.startswith("-")), "")


def application(ours: Sequence[str]) -> typer.Typer:
    """The application; only with the named command if there is one, since importing each takes time."""
    app = typer.Typer(
        cls=Overview,
        help="Turns plain Linux GPU hosts into one vLLM endpoint.",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_common)
    named = command_of(ours)
    for panel, names in PANELS.items():
        for name in names:
            if named not in COMMANDS or name == named:
                _add(app, name, panel)
    return app


def _add(app: typer.Typer, name: str, panel: str) -> None:
    python_name = f"{name}_" if iskeyword(name) else name
    module = importlib.import_module(f"vllmray.cli.{python_name}")
    if name not in GROUPS:
        app.command(name, cls=Command, rich_help_panel=panel)(_complete(getattr(module, python_name)))
        return
    summary, members = GROUPS[name]
    group = typer.Typer(help=summary)
    for member in members:
        group.command(member, cls=Command)(_complete(getattr(module, member)))
    app.add_typer(group, name=name, rich_help_panel=panel)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"vllmray {__version__}")
        raise typer.Exit


Version = typer.Option(
    "--version", "-V", help="Print the version", metavar="", callback=_print_version, is_eager=True, show_default=False
)


def _common(debug: DebugOption = False, as_json: JsonOption = False, version: Annotated[bool, Version] = False) -> None:
    """Does nothing: main.py has already read --debug and --json, wherever they stand."""


def _complete(function: Callable[..., None]) -> Callable[..., None]:
    """Add to a command what all have: --debug, --json also before the command's name, and Ctrl-C as a VllmrayError,
    which Typer would turn into an abort with exit code 1.
    """
    own = inspect.signature(function, eval_str=True).parameters

    def command(context: typer.Context, **arguments: Any) -> None:
        del arguments["debug"]
        if "as_json" in own:
            arguments["as_json"] = context.obj.as_json
        if "context" in own:
            arguments["context"] = context
        try:
            function(**arguments)
        except KeyboardInterrupt:
            raise UserInterruptError("interrupted") from None

    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = [each.replace(kind=kind) for name, each in own.items() if name != "context"]
    parameters.insert(0, inspect.Parameter("context", kind, annotation=typer.Context))
    parameters.append(inspect.Parameter("debug", kind, default=False, annotation=DebugOption))
    return shown_as(function, command, parameters)
