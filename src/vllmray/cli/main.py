"""The one place where an error becomes text and an exit code."""

from __future__ import annotations

import sys
import textwrap
import traceback
from collections.abc import Sequence
from typing import NoReturn

import typer

from vllmray.cli.app import application, command_of
from vllmray.cli.interrupts import arm
from vllmray.cli.run_log import RunLog, logged
from vllmray.cli.usage import usage_error
from vllmray.cli.wiring import Invocation
from vllmray.errors import ConfigError, InternalError, UserInterruptError, VllmrayError, WorkloadError
from vllmray.secure_files import leave_no_core

WITHOUT_VALUE = {"--dry-run": "--dry-run=summary", "--bundle": "--bundle="}
"""Options whose value may be left out, which Typer does not support, and what they are replaced with then."""
LOGGED = (WorkloadError, InternalError)
"""Errors that are for a report: they name the run's log."""
WITH_VLLM_ARGS = ("up", "plan", "demo")
"""Those that take arguments for the vLLM server after --."""


def run(argv: Sequence[str]) -> NoReturn:
    """Run a command line and exit."""
    leave_no_core()
    arm()
    ours, vllm_args = split(argv)
    invocation = Invocation(vllm_args=vllm_args, debug="--debug" in ours, as_json="--json" in ours)
    with logged([*ours, *(("--", *vllm_args) if vllm_args else ())]) as log:
        try:
            if "--" in argv:
                refuse_words(command_of(ours), vllm_args)
            sys.exit(_called(ours, invocation))
        except BrokenPipeError:
            sys.stderr.close()  # the reader closed the pipe: no message can be printed
            sys.exit(1)
        except VllmrayError as error:
            failure = error
        except KeyboardInterrupt:  # outside of a command, which turns it into an error
            failure = UserInterruptError("interrupted")
        except Exception as error:  # noqa: BLE001  # the last resort: any other exception becomes one line
            failure = _internal(error)
        _report(failure, command_of(ours), invocation, log)
    sys.exit(failure.exit_code)


def _report(failure: VllmrayError, command: str, invocation: Invocation, log: RunLog) -> None:
    """Say what failed, on standard error and in the run's log, with --json on standard output too."""
    trace = "".join(traceback.format_exception(failure.__cause__ if isinstance(failure, InternalError) else failure))
    log.add(f"{text_of(failure)}\n{trace}", at_once=type(failure) in LOGGED)
    path = log.path if type(failure) in LOGGED else None
    print(text_of(failure), file=sys.stderr)
    if path:
        print(f"log: {path}", file=sys.stderr)
    if invocation.debug:
        print(trace, end="", file=sys.stderr)
    if invocation.as_json:
        from vllmray.output.envelope import error_envelope

        print(error_envelope(command, failure, log=path))


def _called(ours: Sequence[str], invocation: Invocation) -> int:
    """The exit code of a command that ended without an error."""
    try:
        code = application(ours)(args=ours or ["--help"], obj=invocation, prog_name="vllmray", standalone_mode=False)
    except typer.TyperException as error:
        raise usage_error(error) from error
    return code if isinstance(code, int) else 0


def _internal(error: Exception) -> InternalError:
    """An unexpected exception as an InternalError, with what a clean-up could not remove (errors.say_left)."""
    failure = InternalError(
        f"{type(error).__name__}: {error}",
        details="\n".join(getattr(error, "__notes__", ())) or None,
        hint="Report it; `vllmray logs --bundle` collects what is needed, including the log of this run.",
    )
    failure.__cause__ = error
    return failure


def split(argv: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """(vllmray's arguments, vLLM's arguments) of a command line, split at the first --."""
    at = list(argv).index("--") if "--" in argv else len(argv)
    ours: list[str] = []
    for word in argv[:at]:
        if ours and ours[-1] == WITHOUT_VALUE["--bundle"] and not word.startswith("-"):
            ours[-1] += word  # its value may stand apart
        else:
            ours.append(WITHOUT_VALUE.get(word, word))
    return ours, tuple(argv[at + 1 :])


def refuse_words(command: str, vllm_args: Sequence[str]) -> None:
    """Raises ConfigError for arguments after -- if the command takes none, so that none is silently ignored."""
    if not vllm_args or command in WITH_VLLM_ARGS:
        return
    takers = " and ".join([", ".join(WITH_VLLM_ARGS[:-1]), WITH_VLLM_ARGS[-1]])
    name = f"vllmray {command}".strip()
    count = "1 was" if len(vllm_args) == 1 else f"{len(vllm_args)} were"
    raise ConfigError(
        f"{name} takes no arguments after --, but {count} given",
        hint=f"After -- are arguments for the vLLM server, which {takers} take. See `{name} --help`.",
    )


def text_of(error: VllmrayError) -> str:
    """An error as it is printed: message, the other program's words, what to do."""
    lines = [f"{'internal ' if isinstance(error, InternalError) else ''}error: {error.message}"]
    if error.details:
        lines.append(textwrap.indent(error.details, "    "))
    if error.hint:
        lines.append(f"hint: {error.hint}")
    return "\n".join(lines)
