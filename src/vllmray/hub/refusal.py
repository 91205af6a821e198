"""Explains why Hugging Face did not serve a model, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from vllmray.errors import ConfigError
from vllmray.hub.files import WITHOUT, HubUnreachableError
from vllmray.hub.network import host_of, unreachable

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

SITE = "https://huggingface.co"
TOKENS = f"{SITE}/settings/tokens"


class NotAHubError(Exception):
    """The server answered, but not like a Hugging Face hub."""


class Asked(Protocol):
    """What was asked for, and how."""

    @property
    def model(self) -> str: ...
    @property
    def revision(self) -> str: ...
    @property
    def endpoint(self) -> str: ...
    @property
    def has_token(self) -> bool: ...
    def scrub(self, text: str) -> str: ...


def offline(model: str) -> HubUnreachableError:
    """The error for a model that is not cached while HF_HUB_OFFLINE is set."""
    return HubUnreachableError(
        f"{model} is not in the model cache of this machine, and HF_HUB_OFFLINE is set",
        hint=f"With network access, {_put_there(model)}; or unset HF_HUB_OFFLINE. {WITHOUT}",
    )


def explain(error: Exception, asked: Asked) -> Exception:
    """The ConfigError for what huggingface_hub raised; any other error is returned as it is."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]  # httpx's or httpx2's

    if isinstance(error, HfHubHTTPError):
        return _refused(error, asked)
    if isinstance(error, NotAHubError):
        return HubUnreachableError(
            f"{asked.model}: {host_of(asked.endpoint)} does not answer like a Hugging Face hub",
            hint=f"Check HF_ENDPOINT, and whether a proxy or a login page intercepts requests. {WITHOUT}",
        )
    # ImportError and ValueError: httpx, for a SOCKS proxy without its package, and for a proxy that is not a URL.
    if isinstance(error, HTTPError | OSError | ImportError | ValueError):
        put = f"{_put_there(asked.model)}, or name a mirror with HF_ENDPOINT"
        return unreachable(error, model=asked.model, endpoint=asked.endpoint, put_there=put)
    return error


def _put_there(model: str) -> str:
    return f"download the model into the cache (HF_HOME=MODEL_CACHE_DIR hf download {model})"


def _refused(error: HfHubHTTPError, asked: Asked) -> ConfigError:
    """By the library's classes first: they are made of the hub's X-Error-Code (utils/_http.py, hf_raise_for_status)."""
    from huggingface_hub import errors

    status = error.response.status_code
    details = asked.scrub(error.server_message or "").strip()[:1000] or None
    if status >= 500 or status == 429:
        return HubUnreachableError(
            f"{asked.model}: hub {host_of(asked.endpoint)} answered HTTP {status}",
            details=details,
            hint=f"Try again in a while. {WITHOUT}",
        )
    if isinstance(error, errors.GatedRepoError):
        message, hint = _gated(asked)
    elif isinstance(error, errors.RevisionNotFoundError):
        message = f"{asked.model} has no revision {asked.revision}"
        hint = f"See its branches and tags: {SITE}/{asked.model}/tree/main"
    elif asked.has_token and status == 401 and not isinstance(error, errors.RepositoryNotFoundError):
        message = f"{asked.model}: the hub does not accept the token"
        hint = f"Create a new one at {TOKENS} and set HF_TOKEN to it; or unset HF_TOKEN for a public model."
    elif status in (401, 404):
        message, hint = _not_found(asked)
    else:
        message = f"{asked.model}: the hub denies access (HTTP {status})"
        hint = f"Check {SITE}/{asked.model}, and the permissions of the token: {TOKENS}"
    return ConfigError(message, details=details, hint=hint)


def _gated(asked: Asked) -> tuple[str, str]:
    page = f"{SITE}/{asked.model}"
    if not asked.has_token:
        return (
            f"{asked.model} is gated, and HF_TOKEN is not set",
            f"Accept the model's terms at {page}, create a token at {TOKENS}, and set HF_TOKEN to it.",
        )
    return (
        f"{asked.model} is gated, and the token's owner has no access to it",
        f"Ask for it at {page}; a fine-grained token also needs the right to read public gated repositories: {TOKENS}",
    )


def _not_found(asked: Asked) -> tuple[str, str]:
    private = "the token may not see it" if asked.has_token else "it is private and HF_TOKEN is not set"
    return (
        f"the hub has no model {asked.model}, or {private}",
        f"Check the spelling, ORG/NAME, at {SITE}/models",
    )
