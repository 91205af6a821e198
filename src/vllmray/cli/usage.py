"""Usage errors: what Typer could not parse, as a ConfigError."""

from __future__ import annotations

import typer

from vllmray.errors import ConfigError


def usage_error(error: typer.TyperException) -> ConfigError:
    """A usage error in one line, without Typer's or pydantic's own wording."""
    from pydantic import ValidationError

    message = error.format_message()
    if isinstance(error.__cause__, ValidationError) and error.message:
        message = message.replace(error.message, _words(error.__cause__))
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "vllmray"
    return ConfigError(" ".join(message.split()), hint=f"See `{command} --help`.")


def _words(error: Exception) -> str:
    from vllmray.config.explain import words_of

    found = [f"{what}; {fix}" if fix else what for detail in error.errors() for what, fix in words_of(detail)]  # type: ignore[attr-defined]  # pydantic's
    return found[0]
