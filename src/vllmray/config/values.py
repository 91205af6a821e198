"""Parses words and numbers as users write them; each raises ValueError with the fix in its text."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from vllmray.config.fields import of
from vllmray.config.gpu_words import Gpus, cluster_gpus_as_typed, parse_cluster_gpus, parse_gpus
from vllmray.config.sizes import parse_size, size_as_typed
from vllmray.engine.lengths import AUTO_LENGTH, parse_length

DEFAULT_LIMIT = "default"
AUTO = "auto"
AUTO_SIZE = 0
"""A parallel size that is chosen from the GPUs there are."""
GIB = 1024**3


def as_typed(name: str, value: object) -> str:
    """A setting's value as a user would write it; parsing it gives the same value."""
    if name in ("memlock", "nofile"):
        return DEFAULT_LIMIT if value is None else "unlimited" if value == -1 else str(value)
    if name in ("shm_size", "object_store_memory") and isinstance(value, int):
        return size_as_typed(value)
    if name in ("tensor_parallel_size", "pipeline_parallel_size") and value == AUTO_SIZE:
        return AUTO
    if name == "max_model_len" and value == AUTO_LENGTH:
        return AUTO
    if name == "cluster_gpus" and isinstance(value, tuple):
        return cluster_gpus_as_typed(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def parse_parallel_size(value: object) -> object:
    """A number of GPUs, or "auto"."""
    if value == AUTO:
        return AUTO_SIZE
    if str(value).strip() == str(AUTO_SIZE):
        raise ValueError("too small: the least is 1")
    return value


def parse_limit(value: object) -> object:
    """A ulimit: a number, "unlimited" (-1), or "default" (None) for what the daemon gives."""
    if isinstance(value, str) and value in ("unlimited", "infinity"):
        return -1
    if value == DEFAULT_LIMIT:
        return None
    return value


def split_variables(value: object) -> object:
    """As split_list, but a comma divides only before the next NAME=: NCCL_IB_HCA=mlx5_0,mlx5_1 is one variable."""
    if isinstance(value, str):
        parts = re.split(r"\n|,(?=\s*[A-Za-z_][A-Za-z0-9_]*=)", value)
        return tuple(part.strip() for part in parts if part.strip())
    return value


def check_ipv4(value: str) -> str:
    """An IPv4 address of one host.

    vLLM and Ray disagree about IPv6 node addresses (vllm-project/vllm issue 13521), so only IPv4 is taken.
    """
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        raise ValueError("not an IP address: write it like 10.0.0.1 (a host name will not do)") from None
    if address.version == 6:
        raise ValueError("IPv6 is not supported by vLLM over Ray: use the host's IPv4 address")
    if address.is_unspecified or address.is_multicast:
        raise ValueError("not the address of a host: write it like 10.0.0.1")
    return value


def check_volume(value: str) -> str:
    """SOURCE:TARGET[:rw], both absolute; a relative source would mean another folder on each host."""
    parts = value.split(":")
    if (
        len(parts) not in (2, 3)
        or not all(part.startswith("/") for part in parts[:2])
        or parts[2:] not in ([], ["ro"], ["rw"])
    ):
        raise ValueError("not /source:/target or /source:/target:rw")  # as below
    return value


def check_variable(value: str) -> str:
    """NAME=VALUE."""
    if not re.match(r"[A-Za-z_][A-Za-z0-9_]*=", value):
        raise ValueError("not NAME=VALUE")  # without the text, which may be a secret
    return value


LOGINS = ("hf_token", "modelscope_api_token", "aws_access_key_id", "aws_secret_access_key", "aws_session_token")
"""Settings that are credentials for sources of models."""
# Variables that would show a secret to every process and in `docker inspect`, or would disable a protection.
_AS_A_FILE = "put {} into .env or the environment, it reaches containers as a file"
UNFIT_VARIABLES = {
    "HF_TOKEN": _AS_A_FILE.format("HF_TOKEN"),
    "HUGGING_FACE_HUB_TOKEN": _AS_A_FILE.format("HF_TOKEN"),
    "MODELSCOPE_API_TOKEN": _AS_A_FILE.format("MODELSCOPE_API_TOKEN"),
    "AWS_ACCESS_KEY_ID": _AS_A_FILE.format("AWS_ACCESS_KEY_ID"),
    "AWS_SECRET_ACCESS_KEY": _AS_A_FILE.format("AWS_SECRET_ACCESS_KEY"),
    "AWS_SESSION_TOKEN": _AS_A_FILE.format("AWS_SESSION_TOKEN"),
    "VLLM_API_KEY": "put VLLM_API_KEY into .env or the environment, or give --api-key-file",
    "RAY_AUTH_TOKEN": "give --token-file",
    "RAY_AUTH_TOKEN_PATH": "give --token-file",
    "RAY_AUTH_MODE": "Ray's token authentication is always on",
    "RAY_ADDRESS": "each node gets the head's address from --head-ip",
    "VLLM_HOST_IP": "it differs from host to host: give --node-ip on each",
    "FORWARDED_ALLOW_IPS": "clients could forge their address with it",
    "VLLMRAY_GUARD": "give --no-api-key or --allow-route",
    # vllm 0.32, vllm/config/parallel.py: they multiply the world size as --data-parallel-size does.
    **dict.fromkeys(
        ("VLLM_DP_SIZE", "VLLM_DP_RANK", "VLLM_DP_RANK_LOCAL", "VLLM_DP_MASTER_IP", "VLLM_DP_MASTER_PORT"),
        "it multiplies the GPUs that the engine takes; start a cluster for each replica (--cluster)",
    ),
}


def unfit_variables(variables: tuple[str, ...]) -> list[str]:
    """One line for each environment variable that is not allowed in the containers."""
    names = (variable.partition("=")[0] for variable in variables)
    return [f"{name} is not allowed: {why}" for name in names if (why := why_unfit(name))]


_NAMES_A_SECRET = re.compile(
    r"(^|_)(TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CONNECTION_STRING|"
    r"(API|ACCESS|ACCOUNT|PRIVATE|SECRET)_?KEYS?)(_?\d+)?$"
)
_WHERE_IT_SHOWS = "it looks like a secret, and `docker inspect` shows variables: mount it as a file with --volume"


def why_unfit(name: str) -> str | None:
    """Why a variable is not allowed in the containers, and what to do instead; None if it is allowed.

    A variable whose name says that it is a secret is refused too: it would be in labels, in `docker inspect` and in the
    command that is printed for workers. A name that ends in _FILE or _PATH is a path.
    """
    return UNFIT_VARIABLES.get(name) or (_WHERE_IT_SHOWS if _NAMES_A_SECRET.search(name.upper()) else None)


def is_on_s3(model: str) -> bool:
    """Whether a model is a bucket's: s3://BUCKET/PATH (vllm 0.32, transformers_utils/runai_utils.py)."""
    return model.lower().startswith("s3://")


def check_key(value: SecretStr) -> SecretStr:
    """A key that an HTTP header can carry: printable ASCII without spaces (RFC 9110, 5.5), on one line."""
    if not re.fullmatch(r"[!-~]+", value.get_secret_value()):
        raise ValueError("a key is one line of printable ASCII characters without spaces")
    return value


MIN_TOKEN = 16


def check_token(value: SecretStr) -> SecretStr:
    """As check_key, and long enough: anyone who guesses it can run code on every host."""
    if len(check_key(value).get_secret_value()) < MIN_TOKEN:
        raise ValueError(f"too short for a token: the least is {MIN_TOKEN} characters")
    return value


def check_route(value: str) -> str:
    """A path of vLLM's server, exact."""
    if not re.fullmatch(r"(/[\w.-]+)+", value, re.ASCII):
        raise ValueError("not a route: write it like /v1/rerank")
    return value


Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(ge=0, le=7 * 24 * 3600)]
Patience = Annotated[float, Field(ge=10, le=24 * 3600)]
"""Seconds too, with a minimum that one slow answer does not exceed."""
Size = Annotated[int, BeforeValidator(parse_size)]
Limit = Annotated[int | None, BeforeValidator(parse_limit)]
IPv4 = Annotated[str, AfterValidator(check_ipv4)]
Volume = Annotated[str, AfterValidator(check_volume)]
Variable = Annotated[str, AfterValidator(check_variable)]
ApiKey = Annotated[SecretStr, AfterValidator(check_key)]
Login = Annotated[ApiKey | None, Field(json_schema_extra=of("command"))]
"""A key of a setting that has no option."""
RayToken = Annotated[SecretStr, AfterValidator(check_token)]
Route = Annotated[str, AfterValidator(check_route)]
Length = Annotated[int, BeforeValidator(parse_length), Field(ge=AUTO_LENGTH)]
ParallelSize = Annotated[int, BeforeValidator(parse_parallel_size)]
ClusterGpus = Annotated[tuple[tuple[int, ...], ...], BeforeValidator(parse_cluster_gpus)]
GpuChoice = Annotated[Gpus, BeforeValidator(parse_gpus)]
