"""A model on Hugging Face, or on a hub with the same API (HF_ENDPOINT).

Two or three requests, with the library's own session: its proxies, its offline mode, its errors. Nothing is written:
files that a download left in MODEL_CACHE_DIR would belong to this user, and the nodes' user has to write there.
HfApi.model_info and hf_hub_download are not used: they first ask the hub for a list of coding agents to report this
process as one (huggingface_hub 2.4, utils/_detect_agent.py), and the download retries an unreachable hub for minutes
(file_download.py, _ETAG_RETRY_TIMEOUT).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from vllmray.errors import ConfigError
from vllmray.hub import files, network, refusal
from vllmray.version import __version__

if TYPE_CHECKING:
    from pydantic import SecretStr

TRUE = ("1", "ON", "YES", "TRUE")  # huggingface_hub, constants.py: ENV_VARS_TRUE_VALUES


class Hub:
    """One model on a hub.

    Args:
        environment: the nodes' variables: their HF_ENDPOINT and HF_HUB_OFFLINE hold here too, before this process's.
        token: sent as it is; without one none is sent, even if the user is logged in: the nodes are not.
    """

    def __init__(
        self, model: str, *, token: SecretStr | None, environment: Mapping[str, str], revision: str | None
    ) -> None:
        from huggingface_hub import constants

        self.model = model
        self.revision = revision or constants.DEFAULT_REVISION
        self.endpoint = (environment.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
        self.offline = environment.get("HF_HUB_OFFLINE", "").upper() in TRUE or constants.HF_HUB_OFFLINE
        self._token = _checked(token)

    def look(self) -> files.ModelFiles:
        """The model as the hub has it.

        Raises:
            HubUnreachableError: there was no answer, or offline mode is on.
            ConfigError: the hub refuses, or has no such model; or the model lacks something.
        """
        network.check_endpoint(self.endpoint, "HF_ENDPOINT")
        if self.offline:
            raise refusal.offline(self.model)
        try:
            return network.within(network.ANSWER_S, self._ask)
        except ConfigError:
            raise
        except Exception as error:  # noqa: BLE001  # an error that is not the library's is raised as it is
            raise refusal.explain(error, self) from None  # the library's words may have the token in them

    def scrub(self, text: str) -> str:
        """The text with the token removed."""
        return text.replace(self._token, "…") if self._token else text

    @property
    def has_token(self) -> bool:
        """Whether requests carry a token."""
        return bool(self._token)

    def _ask(self) -> files.ModelFiles:
        answer = self._get(f"api/models/{self.model}/revision/{quote(self.revision, safe='')}?blobs=true")
        commit, sizes = _listing(answer)
        return files.from_listing(
            sizes,
            lambda name: bytes(self._get(f"{self.model}/resolve/{quote(commit, safe='')}/{name}").content),
            model=self.model,
            where=f"hub {network.host_of(self.endpoint)}",
        )

    def _get(self, path: str) -> Any:
        """The hub's answer; one retry when a gateway in front of it failed."""
        from huggingface_hub import get_session, hf_raise_for_status

        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its log lines would appear among ours
        headers = {"user-agent": f"vllmray/{__version__}"}
        if self._token:
            headers["authorization"] = f"Bearer {self._token}"
        for last in (False, True):
            response = get_session().get(f"{self.endpoint}/{path}", headers=headers, timeout=network.REQUEST_S)
            if last or response.status_code not in (502, 503, 504):
                break
        hf_raise_for_status(response)
        return response


def _listing(answer: Any) -> tuple[str, dict[str, int | None]]:
    """Commit and sizes of files in a hub's answer; raises NotAHubError for any other answer."""
    try:
        info = answer.json()
        sizes = {str(entry["rfilename"]): entry.get("size") for entry in info["siblings"]}
        return str(info["sha"]), {name: size if isinstance(size, int) else None for name, size in sizes.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise refusal.NotAHubError from error


def _checked(token: SecretStr | None) -> str:
    """The token's text; raises ConfigError for one that no header can carry: the library's error would show it."""
    text = token.get_secret_value().strip() if token else ""
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise ConfigError(
            "the Hugging Face token has invalid characters",
            hint="Copy it again from https://huggingface.co/settings/tokens into HF_TOKEN.",
        )
    return text
