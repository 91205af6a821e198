"""vllmray chat"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from vllmray.cli.credentials import client_of
from vllmray.cli.interrupts import arm
from vllmray.cli.options import Place, switch, with_place
from vllmray.cli.wiring import open_cluster
from vllmray.errors import ClusterStateError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Generator

    from vllmray.endpoint.chat import Endpoint, Message


MOST_TOKENS = 512
"""The default limit of an answer; counted here, since a server refuses a max_tokens that exceeds its context."""


@with_place
def chat(
    *,
    place: Place,
    prompt: Annotated[
        str | None, typer.Argument(metavar="[PROMPT]", help="One question; without it, a conversation")
    ] = None,
    system: Annotated[str | None, typer.Option("--system", metavar="TEXT", help="System prompt")] = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", metavar="N", min=1, help="Maximum length of an answer in tokens")
    ] = None,
    as_json: Annotated[bool, switch("--json", help="Print the answer to PROMPT as one line of JSON")] = False,
) -> None:
    """Chat with the served model.

    Runs on the head's host. A conversation ends with Ctrl-D; Ctrl-C stops an answer. An answer that repeats itself is
    stopped, and one of more than 512 tokens unless --max-tokens allows more.
    """
    if as_json and prompt is None:
        raise ConfigError("--json needs a PROMPT", hint="Give one: vllmray chat --json PROMPT")
    endpoint = client_of(*_where(place))
    try:
        model = endpoint.model()
        messages: list[Message] = [{"role": "system", "content": system}] if system else []
        if prompt is not None:
            messages.append({"role": "user", "content": prompt})
            answer = endpoint.answer(model, messages, max_tokens=max_tokens)
            if as_json:
                _say_json(model, answer, max_tokens)
            else:
                _say(answer, [], max_tokens)
        else:
            print(f"{model}; exit with Ctrl-D", file=sys.stderr)
            _converse(endpoint, model, messages, max_tokens)
    finally:
        endpoint.close()


def _where(place: Place) -> tuple[str, str]:
    """The cluster's name and its endpoint's URL.

    Raises:
        ClusterStateError: no such cluster, not the head's host, or it is not ready.
    """
    from vllmray.cluster.observe.status import look
    from vllmray.config.models import ClusterConfig

    with open_cluster(place) as about:
        view = look(about.host, about.cluster)
    insecure = bool(place.insecure_docker_tcp)
    config = ClusterConfig(cluster=view.cluster, insecure_docker_tcp=insecure).typed_on(place.host)
    if view.endpoint is None:
        head = view.settings.get("head_ip")
        raise ClusterStateError(
            f"the endpoint is on the head's host, {head}", hint=f"Run it there: vllmray chat{config.cluster_option}"
        )
    if not view.ready:
        raise ClusterStateError(
            f"cluster {view.cluster} is not ready: {view.problem}",
            hint=f"See `vllmray status{config.place_option}`.",
        )
    return view.cluster, view.endpoint


def _converse(endpoint: Endpoint, model: str, messages: list[Message], max_tokens: int | None) -> None:
    """Converse until the end of standard input; Ctrl-C stops an answer, whose text so far is kept."""
    with suppress(ImportError):
        import readline  # noqa: F401  # gives input() line editing and a history
    while (said := _next_line()) is not None:
        if not said.strip():
            continue
        messages.append({"role": "user", "content": said})
        pieces: list[str] = []
        try:
            _say(endpoint.answer(model, messages, max_tokens=max_tokens), pieces, max_tokens)
        except KeyboardInterrupt:
            arm()
            print()
        if pieces:
            messages.append({"role": "assistant", "content": "".join(pieces)})
        else:
            messages.pop()  # a question without an answer is not sent again with the next one


def _next_line() -> str | None:
    """The next input line; None at the end. At a terminal Ctrl-C discards the line, and only Ctrl-D exits."""
    terminal = sys.stdin.isatty()
    while True:
        try:
            return input("> " if terminal else "")
        except EOFError:
            return None
        except KeyboardInterrupt:
            if not terminal:
                raise
            arm()
            print("\nexit with Ctrl-D", file=sys.stderr)


def _say(answer: Generator[str, None, str | None], pieces: list[str], max_tokens: int | None) -> None:
    """Print an answer as it comes, and keep it; stop one that is too long, and say so."""
    from vllmray.endpoint.limits import limited

    why: list[str] = []
    for piece in limited(answer, most=MOST_TOKENS if max_tokens is None else None, cut=why.append):
        pieces.append(piece)
        print(piece, end="", flush=True)
    print(flush=True)
    for reason in why:
        print(f"stopped: {reason}", file=sys.stderr)


def _say_json(model: str, answer: Generator[str, None, str | None], max_tokens: int | None) -> None:
    from vllmray.endpoint.limits import limited
    from vllmray.output.envelope import envelope
    from vllmray.output.results import Chat

    why: list[str] = []
    pieces = limited(answer, most=MOST_TOKENS if max_tokens is None else None, cut=why.append)
    print(envelope("chat", Chat(model, "".join(pieces), why)))
