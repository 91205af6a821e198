"""A conversation with the served model over vLLM's OpenAI API: JSON requests, answers as server-sent events."""

from __future__ import annotations

import json
import ssl
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Literal, TypedDict

import httpx2

from vllmray.errors import VllmrayError

CONNECT_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 600.0
END_OF_PEM = "-----END CERTIFICATE-----"
END_OF_STREAM = "[DONE]"
UNAUTHORIZED = 401
LONGEST_DETAILS = 1000


class Message(TypedDict):
    """One turn, as the OpenAI API has it."""

    role: Literal["user", "assistant", "system"]
    content: str


class Endpoint:
    """A vLLM server's OpenAI API.

    Args:
        url: ends in /v1.
        api_key: None for an endpoint without authentication.
        certificate: the only one that is accepted of the server, PEM; None to accept one that a CA has signed.
    """

    def __init__(self, url: str, api_key: str | None = None, *, certificate: str | None = None) -> None:
        self._url = url
        self._client = httpx2.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx2.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            verify=_only(certificate) if certificate else True,
        )

    def model(self) -> str:
        """The name of the model that is served; the first, where there are several. Raises VllmrayError."""
        with self._failures():
            response = self._client.get("/models")
            self._check(response)
            return str(response.json()["data"][0]["id"])

    def answer(
        self, model: str, messages: Sequence[Message], *, max_tokens: int | None, greedy: bool = False
    ) -> Generator[str, None, str | None]:
        """The pieces of the next turn, as they are made; at the end OpenAI's finish_reason, "length" where it was cut.

        A piece without text is one of the model's reasoning, which a server with a --reasoning-parser keeps apart.

        Args:
            max_tokens: the longest answer; None for the server's own bound.
            greedy: always the likeliest token, so that a question has one answer.

        Raises:
            VllmrayError: the endpoint can't be reached, refuses, or cuts the answer off.
        """
        asked: dict[str, Any] = {"model": model, "messages": list(messages), "stream": True}
        if max_tokens is not None:
            asked["max_tokens"] = max_tokens
        if greedy:
            asked["temperature"] = 0
        reason = None
        with self._failures(), self._client.sse("/chat/completions", method="POST", json=asked) as events:
            self._check(events.response)
            for event in events:
                if event.data == END_OF_STREAM:
                    return reason
                for choice in self._choices(event.data):
                    reason = choice.get("finish_reason") or reason
                    yield choice["delta"].get("content") or ""
        raise self._failed("the answer was cut off")

    def _choices(self, data: str) -> list[dict[str, Any]]:
        """The first choice of a chunk, if it has one: the last chunk may have only usage figures."""
        chunk = json.loads(data)
        if "error" in chunk:
            raise self._failed("the answer was cut off", _message(data))
        return list(chunk["choices"][:1])

    def _check(self, response: httpx2.Response) -> None:
        """Raises VllmrayError unless the server answered with success."""
        if response.is_success:
            return
        response.read()
        wrong_key = response.status_code == UNAUTHORIZED
        words = "the API key of this machine was rejected" if wrong_key else "the request was rejected"
        raise self._failed(words, f"HTTP {response.status_code}: {_message(response.text)}")

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Turn a failed connection, and an answer that is not OpenAI's, into VllmrayError."""
        try:
            yield
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise self._failed("cannot connect", str(error)) from error
        except httpx2.HTTPError as error:
            raise self._failed("the request failed", str(error)) from error
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise self._failed("not an OpenAI API response", f"{type(error).__name__}: {error}") from error

    def _failed(self, words: str, details: str | None = None) -> VllmrayError:
        return VllmrayError(
            f"{self._url}: {words}",
            details=details[:LONGEST_DETAILS] if details else None,
            hint="`vllmray status` shows whether the cluster is ready.",
        )

    def close(self) -> None:
        """Close connections."""
        self._client.close()


def _message(text: str) -> str:
    """The message in an OpenAI error body, or the whole body where it is of another form."""
    with suppress(ValueError, KeyError, TypeError):
        return str(json.loads(text)["error"]["message"])
    return text


def _only(certificate: str) -> ssl.SSLContext:
    """Trust only the first certificate of a chain, without a check of its issuer or of the server's name.

    The certificates that follow are not trusted: a CA among them has signed others too.
    """
    leaf = certificate[: certificate.index(END_OF_PEM) + len(END_OF_PEM)]
    context = ssl.create_default_context(cadata=leaf)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.check_hostname = False
    return context
