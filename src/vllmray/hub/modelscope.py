"""A model on ModelScope, through its own package, which is an optional extra: few need it, and it is large."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vllmray.errors import ConfigError
from vllmray.hub import files, network

if TYPE_CHECKING:
    from pydantic import SecretStr

SITE = "https://modelscope.cn"
REVISION = "master"  # modelscope-hub 0.5, api.py, list_repo_files


def look(
    model: str, *, login: SecretStr | None, environment: Mapping[str, str], revision: str | None
) -> files.ModelFiles:
    """The model as ModelScope has it.

    Args:
        login: the token that the nodes will use; without one the user's own login is not used either.
        environment: the nodes' variables: MODELSCOPE_ENDPOINT holds here too.

    Raises:
        HubUnreachableError: there was no answer.
        ConfigError: the package is not installed; or ModelScope refuses, or the model lacks something.
    """
    _api()
    endpoint = environment.get("MODELSCOPE_ENDPOINT", SITE).rstrip("/")
    network.check_endpoint(endpoint, "MODELSCOPE_ENDPOINT")
    token = login.get_secret_value() if login else ""
    try:
        return network.within(
            network.ANSWER_S, lambda: _ask(model, revision or REVISION, token=token, endpoint=endpoint)
        )
    except ConfigError:
        raise
    except Exception as error:  # noqa: BLE001  # an error that is not the package's is raised as it is
        details = str(error).replace(token or "\0", "…")[:1000]
        raise _explain(error, details, model=model, endpoint=endpoint) from None  # its message may contain the token


def _explain(error: Exception, details: str, *, model: str, endpoint: str) -> Exception:
    """The ConfigError for what the package raised: its own errors, and those of requests, have the status.

    An answer that is not JSON is both OSError and ValueError in requests.
    """
    status = getattr(error, "status_code", None) or getattr(getattr(error, "response", None), "status_code", None)
    if status is None and isinstance(error, OSError) and not isinstance(error, ValueError):
        put = f"download the model into the cache (modelscope download {model})"
        return network.unreachable(error, model=model, endpoint=endpoint, put_there=put)
    if status is None and not isinstance(error, ValueError):
        return error
    if status is None or status >= 500 or status == 429:
        says = f"answers {status}" if status else "does not answer like the ModelScope API"
        return files.HubUnreachableError(
            f"{model}: hub {network.host_of(endpoint)} {says}",
            details=details,
            hint=f"Check MODELSCOPE_ENDPOINT, or try again in a while. {files.WITHOUT}",
        )
    return ConfigError(
        f"ModelScope has no model {model}, or denies access to it (HTTP {status})",
        details=details,
        hint=f"Check its spelling and revision at {SITE}/models, and MODELSCOPE_API_TOKEN in .env or the environment.",
    )


def _api() -> Any:
    """The module that vLLM uses too (vllm 0.32, vllm/transformers_utils/utils.py)."""
    try:
        return importlib.import_module("modelscope.hub.api")
    except ModuleNotFoundError as error:
        raise ConfigError(
            "VLLM_USE_MODELSCOPE is set, but the Python package that reads ModelScope is not installed",
            hint=f"pip install 'vllmray[modelscope]'; or unset VLLM_USE_MODELSCOPE. {files.WITHOUT}",
        ) from error


def _ask(model: str, revision: str, *, token: str, endpoint: str) -> files.ModelFiles:
    """List the model's files. An empty token is passed too: None would mean the user's own login."""
    api = _api().HubApi(endpoint=endpoint, timeout=network.REQUEST_S, max_retries=0, token=token)
    logging.getLogger("modelscope_hub").setLevel(logging.ERROR)  # its log lines about retries would appear among ours
    listed = api.get_model_files(model, revision=revision, recursive=False)
    return files.from_listing(
        {str(entry["Path"]): int(entry["Size"]) for entry in listed},
        lambda name: _read(api, model, name, revision=revision),
        model=model,
        where=f"hub {network.host_of(endpoint)}",
    )


def _read(api: Any, model: str, name: str, *, revision: str) -> bytes:
    """A small file, by the package's session: model_file_download shows a progress bar and writes below the home."""
    url = importlib.import_module("modelscope.hub.file_download").get_file_download_url
    headers = {"Authorization": f"Bearer {api.token}"} if api.token else {}
    address = url(model, name, revision=revision, endpoint=api.endpoint)
    response = api.session.get(address, headers=headers, timeout=network.REQUEST_S)
    response.raise_for_status()
    return bytes(response.content)
