"""A conversation with the served model through the openai client; answers come piece by piece."""

from __future__ import annotations

import ssl
from collections.abc import Generator, Sequence
from typing import Any, Literal, TypedDict

import openai

from vllmray.errors import VllmrayError

CONNECT_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 600.0
END_OF_PEM = "-----END CERTIFICATE-----"


class Message(TypedDict):
    """One turn, as the OpenAI API has it."""

    role: Literal["user", "assistant", "system"]
    content: str


class Endpoint:
    """A vLLM server's OpenAI API.

    Args:
        url: ends in /v1.
        api_key: None for an endpoint that asks for none.
        certificate: the very one that the server must show, PEM; None for one that an authority stands for.
    """

    def __init__(self, url: str, api_key: str | None = None, *, certificate: str | None = None) -> None:
        self._url = url
        timeout = openai.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        http = openai.DefaultHttpxClient(verify=_only(certificate)) if certificate else None
        key = api_key or "none"
        self._client = openai.OpenAI(base_url=url, api_key=key, timeout=timeout, max_retries=0, http_client=http)

    def model(self) -> str:
        """The name of the model that is served; the first, where there are several. Raises VllmrayError."""
        try:
            return next(iter(self._client.models.list())).id
        except (openai.OpenAIError, StopIteration) as error:
            raise self._failed(error) from error

    def answer(
        self, model: str, messages: Sequence[Message], *, max_tokens: int | None, greedy: bool = False
    ) -> Generator[str, None, str | None]:
        """The pieces of the next turn, as they are made; at the end OpenAI's finish_reason, "length" where it was cut.

        A piece without text is one of the model's reasoning, which a server with a --reasoning-parser keeps apart.

        Args:
            max_tokens: the longest answer; None for the server's own bound.
            greedy: always the likeliest token, so that a question has one answer.

        Raises:
            VllmrayError: the endpoint is not there, refuses, or breaks off.
        """
        turns: Any = list(messages)  # a union of many types there
        try:
            stream = self._client.chat.completions.create(
                model=model,
                messages=turns,
                max_tokens=max_tokens,
                temperature=0 if greedy else None,
                stream=True,
            )
            reason = None
            with stream:
                for chunk in stream:
                    for choice in chunk.choices[:1]:
                        reason = choice.finish_reason or reason
                        yield choice.delta.content or ""
            return reason
        except openai.OpenAIError as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> VllmrayError:
        said = {
            openai.APIConnectionError: "it can't be reached",
            openai.AuthenticationError: "it asks for another API key than the one that is kept here",
            openai.APIStatusError: "it refused",
        }
        words = next((text for kind, text in said.items() if isinstance(error, kind)), "it did not answer")
        return VllmrayError(
            f"{self._url}: {words}", details=str(error)[:1000], hint="`vllmray status` says whether the cluster serves."
        )

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()


def _only(certificate: str) -> ssl.SSLContext:
    """Trust in the first certificate of a chain, whoever signed it and whatever name the server is called by.

    Not in those that follow: an authority of many others stands for them too.
    """
    leaf = certificate[: certificate.index(END_OF_PEM) + len(END_OF_PEM)]
    context = ssl.create_default_context(cadata=leaf)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.check_hostname = False
    return context
