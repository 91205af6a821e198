"""The settings of a cluster, checked: one frozen model; its descriptions are those of --help and docs/settings.md."""

from __future__ import annotations

import shlex
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationInfo,
    field_validator,
)

from vllmray.config.fields import ImageBuild, kind_of, of, unless
from vllmray.config.gpu_words import ALL_GPUS
from vllmray.config.sizes import split_list
from vllmray.config.values import (
    AUTO_SIZE,
    GIB,
    ClusterGpus,
    GpuChoice,
    IPv4,
    Length,
    Limit,
    Login,
    ParallelSize,
    Patience,
    Port,
    RayToken,
    Route,
    Seconds,
    Size,
    Variable,
    Volume,
    split_variables,
    unfit_variables,
)
from vllmray.engine.argv import flag_conflicts
from vllmray.ray.ports import RayPorts

Accelerator = Literal["nvidia", "amd", "cpu"]
Runtime = Literal["docker", "native"]
Role = Literal["head", "worker"]

DEFAULT_CLUSTER = "vllmray"
DEFAULT_IMAGE = "vllm/vllm-openai:v0.33.0"
DEFAULT_MODEL = "meta-llama/Llama-3.1-70B-Instruct"

MAX_NEIGHBOURS = 40  # so that the ports of each stay below 52365, where the dashboard agents' begin
MIN_OBJECT_STORE = 75 * 1024**2  # Ray's own minimum: OBJECT_STORE_MINIMUM_MEMORY_BYTES, ray/_private/ray_constants.py


class ClusterConfig(BaseModel):
    """What `up` works from. Sizes are bytes, times are seconds.

    Fields marked `node` shape every Ray node's container, those marked `engine` only the engine's, those marked
    `command` only the command that is running: changing one of these does not change the cluster.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    cluster: str = Field(
        DEFAULT_CLUSTER,
        pattern=r"^[a-z0-9][a-z0-9-]{0,40}$",
        description="Name of the cluster",
        json_schema_extra=of("node"),
    )
    model: str = Field(
        DEFAULT_MODEL,
        min_length=1,
        description="Hugging Face id, or the absolute path of a model folder that every host has",
        json_schema_extra=of("node"),
    )
    model_cache_dir: str = Field(
        "./models", min_length=1, description="Folder on each host for downloaded models", json_schema_extra=of("node")
    )
    hf_token: SecretStr | None = Field(None, description="Hugging Face token", json_schema_extra=of("command"))
    modelscope_api_token: Login = Field(None, description="ModelScope token, with VLLM_USE_MODELSCOPE")
    aws_access_key_id: Login = Field(None, description="Access key for a model on S3 (s3://BUCKET/PATH)")
    aws_secret_access_key: Login = Field(None, description="Secret key for a model on S3")
    aws_session_token: Login = Field(None, description="Session token of temporary S3 credentials")
    ray_token: RayToken | None = Field(
        None, description="Ray's authentication token; `up` makes one on the head", json_schema_extra=of("command")
    )
    token_file: str | None = Field(
        None, description="File with Ray's token (see `vllmray token`)", json_schema_extra=of("command")
    )
    api_key: Login = Field(None, description="API key of the endpoint; `up` makes one on the head")
    api_key_file: str | None = Field(
        None, description="File with API keys of the endpoint, one a line", json_schema_extra=of("command")
    )
    no_api_key: bool = Field(default=False, description="Serve without authentication", json_schema_extra=of("engine"))
    scrape_token: Login = Field(None, description="Token for /metrics from other hosts; `up` makes one on the head")
    allow_routes: Annotated[tuple[Route, ...], BeforeValidator(split_list)] = Field(
        (),
        description="Further route of the vLLM server to allow, with the API key: /v1/rerank",
        json_schema_extra=of("engine"),
    )
    tls: Literal["self-signed"] | None = Field(
        None, description="self-signed: serve HTTPS with a generated certificate", json_schema_extra=of("engine")
    )
    ssl_certfile: str | None = Field(
        None, description="Certificate of the endpoint, a PEM file; serves HTTPS", json_schema_extra=of("engine")
    )
    ssl_keyfile: str | None = Field(
        None,
        validate_default=True,
        description="Private key of the certificate, a PEM file",
        json_schema_extra=of("engine"),
    )
    port: Port = Field(8000, description="Port of the endpoint", json_schema_extra=of("engine"))
    max_model_len: Length = Field(
        4096,
        description="Maximum context length in tokens: a number, 128k (1000s), 128K (1024s), or auto",
        json_schema_extra=of("engine"),
    )
    tensor_parallel_size: ParallelSize = Field(
        2, ge=0, le=1024, description="Number of GPUs for tensor parallelism, or auto", json_schema_extra=of("engine")
    )
    pipeline_parallel_size: ParallelSize = Field(
        2, ge=0, le=1024, description="Number of pipeline parallel stages, or auto", json_schema_extra=of("engine")
    )
    cluster_gpus: ClusterGpus = Field(
        (),
        description="GPUs of each host and their memory, the head's first (2x80GiB,2xH100), for parallel sizes "
        "that are auto; without it, the head's GPUs",
        json_schema_extra=of("command"),
    )
    allow_tp_across_hosts: bool = Field(
        default=False, description="Allow tensor parallelism across hosts", json_schema_extra=of("engine")
    )
    vllm_args: tuple[str, ...] = Field((), description="Arguments of the vLLM server", json_schema_extra=of("engine"))
    image: str = Field(DEFAULT_IMAGE, min_length=1, description="Image with vLLM and Ray", json_schema_extra=of("node"))
    build: ImageBuild | None = Field(
        None, description="Dockerfile to build the image from", json_schema_extra=of("command")
    )
    runtime: Runtime | None = Field(
        None,
        description="docker (containers) or native (processes of this machine); without it, docker, "
        "or native if this machine has no Docker",
        json_schema_extra=of("command"),
    )
    python: str | None = Field(
        None,
        pattern="^/",
        description="Python with Ray and vLLM, for the native runtime; without it, the one that runs vllmray",
        json_schema_extra=of("command"),
    )
    network: str = Field("host", description="Docker network of the containers", json_schema_extra=of("node"))
    accelerator: Accelerator = Field(
        "nvidia", description="Accelerator of the nodes: nvidia, amd or cpu", json_schema_extra=of("node")
    )
    gpus: GpuChoice = Field(
        ALL_GPUS,
        description="GPUs of this host: all, a count, or ids (0,2); with cpu, the number of simulated GPU slots",
        json_schema_extra=of("node"),
    )
    head_ip: IPv4 | None = Field(None, description="IP address of the head", json_schema_extra=of("node"))
    node_ip: IPv4 | None = Field(
        None, description="IP address of this host, reachable from the other hosts", json_schema_extra=of("node")
    )
    network_interface: str | None = Field(
        None, pattern=r"^[\w.@:-]{1,15}$", description="Network interface of that address", json_schema_extra=of("node")
    )
    shm_size: Size = Field(
        16 * GIB, ge=64 * 1024**2, description="Size of /dev/shm of a node", json_schema_extra=of("node")
    )  # nosec B108 # words for a person
    object_store_memory: Size = Field(
        GIB,
        validate_default=True,
        ge=MIN_OBJECT_STORE,
        description="Size of Ray's object store, within /dev/shm",
        json_schema_extra=of("node"),
    )
    rdma: bool = Field(
        default=False,
        description="Add /dev/infiniband to the containers, and allow unlimited locked memory",
        json_schema_extra=of("node"),
    )
    memlock: Limit = Field(
        None,
        ge=-1,
        description="Locked memory limit in bytes: a number, unlimited, or default (unlimited with --rdma)",
        json_schema_extra=of("node"),
    )
    nofile: Limit = Field(
        1048576, ge=1024, description="Open file limit: a number, or default", json_schema_extra=of("node")
    )
    user: str | None = Field(
        None,
        pattern=r"^\d{1,10}:\d{1,10}$",
        description="UID:GID of the containers; without it, the image's user, or yours if that is root",
        json_schema_extra=of("node"),
    )
    writable_root: bool = Field(
        default=False, description="Mount the containers' root file system read-write", json_schema_extra=of("node")
    )
    ray_metrics: bool = Field(
        default=False,
        description="Expose Ray's three metrics ports, which have no authentication",
        json_schema_extra=of("node"),
    )
    volumes: Annotated[tuple[Volume, ...], BeforeValidator(split_list)] = Field(
        (), description="Folder of the host to mount, read-only unless it ends in :rw", json_schema_extra=of("node")
    )
    env: Annotated[tuple[Variable, ...], BeforeValidator(split_variables)] = Field(
        (), description="Environment variable of the containers", json_schema_extra=of("node")
    )
    ray_ports: RayPorts = Field(default_factory=RayPorts, validate_default=True, json_schema_extra=of("node"))
    join_timeout: Seconds = Field(
        900, description="Maximum wait for the GPUs to join, in seconds", json_schema_extra=of("command")
    )
    engine_timeout: Seconds = Field(
        3600, description="Maximum wait for the engine, in seconds", json_schema_extra=of("command")
    )
    stall_timeout: Patience = Field(
        120,
        description="Restart the engine when it makes no token for this long, in seconds",
        json_schema_extra=of("engine"),
    )
    insecure_docker_tcp: bool = Field(
        default=False,
        description="Connect to a Docker daemon over TCP without TLS: anyone who reaches its port is root there",
        json_schema_extra=of("command"),
    )
    vllm_startup_delay: str | None = Field(None, description="Ignored: not needed", json_schema_extra=of("command"))

    _host: str | None = PrivateAttr(None)  # as --host was typed: not a setting, but later command lines need it

    def typed_on(self, host: str | ClusterConfig | None) -> Self:
        """The settings with the address that --host gave, so that later command lines name it too."""
        typed = self.model_copy()
        typed._host = host._host if isinstance(host, ClusterConfig) else host
        return typed

    @property
    def place_option(self) -> str:
        """Options with which a later command finds this cluster on the same host; starts with a space unless empty."""
        return self.cluster_option + self.host_option

    @property
    def host_option(self) -> str:
        named = f" --host {shlex.quote(self._host)}" if self._host else ""
        return named + (" --insecure-docker-tcp" if self.insecure_docker_tcp else "")

    @property
    def cluster_option(self) -> str:
        """Options with which a later command finds this cluster; starts with a space unless empty."""
        return "" if self.cluster == DEFAULT_CLUSTER else f" --cluster {self.cluster}"

    def with_loopback_ports(self) -> ClusterConfig:
        """For a worker: at a loopback address 127.0.0.N other nodes are on the same machine, so it moves its ports."""
        if self.network != "host" or not (self.node_ip or "").startswith("127."):
            return self
        place = int(str(self.node_ip).rpartition(".")[2]) % MAX_NEIGHBOURS
        return self.model_copy(update={"ray_ports": self.ray_ports.beside(place)})

    @property
    def world_size(self) -> int:
        """GPUs that the engine takes in all."""
        return self.tensor_parallel_size * self.pipeline_parallel_size

    @property
    def is_auto(self) -> bool:
        """A parallel size is still to be chosen."""
        return AUTO_SIZE in (self.tensor_parallel_size, self.pipeline_parallel_size)

    @property
    def environment(self) -> dict[str, str]:
        """env, by name."""
        return dict(text.split("=", 1) for text in self.env)

    @property
    def serves_https(self) -> bool:
        """The endpoint has a certificate."""
        return bool(self.tls or self.ssl_certfile)

    @property
    def model_is_a_folder(self) -> bool:
        """The model is a folder of the hosts, not an id to download."""
        return self.model.startswith("/")

    # Every check belongs to one field, also those that use another, so that all problems are reported at once:
    # pydantic runs a model's own validator only when every field is valid by itself.

    @field_validator("vllm_args")
    @classmethod
    def _not_ours(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return unless(flag_conflicts(value), value)

    @field_validator("env")
    @classmethod
    def _no_secret(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return unless(unfit_variables(value), value)

    @field_validator("ssl_keyfile")
    @classmethod
    def _one_certificate(cls, value: str | None, info: ValidationInfo) -> str | None:
        certificate = info.data.get("ssl_certfile")
        problems = []
        if (value is None) != (certificate is None):
            problems.append("--ssl-certfile and --ssl-keyfile belong together: give both")
        if certificate and info.data.get("tls"):
            problems.append("--tls and --ssl-certfile exclude each other: give one of them")
        return unless(problems, value)

    @field_validator("model")
    @classmethod
    def _same_everywhere(cls, value: str) -> str:
        if value.startswith(("./", "../", "~")):
            raise ValueError("a relative path: give an absolute path, the same on every host")
        return value

    @field_validator("object_store_memory")
    @classmethod
    def _inside_shm(cls, value: int, info: ValidationInfo) -> int:
        if value > info.data.get("shm_size", value):
            raise ValueError("larger than shm_size, which contains it: lower it or raise shm_size")
        return value

    @field_validator("ray_ports")
    @classmethod
    def _no_clash(cls, value: RayPorts, info: ValidationInfo) -> RayPorts:
        others = {"port": info.data["port"]} if "port" in info.data else {}
        return unless(value.clashes(others), value)


def fields_of(*kinds: str) -> tuple[str, ...]:
    """Names of the fields marked with one of these kinds, in the order of the model."""
    return tuple(
        name for name, field in ClusterConfig.model_fields.items() if kind_of(field.json_schema_extra) in kinds
    )
