"""A daemon's refusal in its own words -> a HostError with what to do about it.

The Engine API distinguishes most of these by their text alone; a comment at each pattern names the program that prints
that text.
"""

from __future__ import annotations

import re

from vllmray.errors import BrokenConnectionError, HostError, NoGpuRuntimeError

BROKEN_OFF = (
    "Check that the daemon runs there (docker info) and that the network to it is up; then run the same command again."
)
NO_DAEMON = "Check that a Docker daemon runs there (docker info), or name another with --host."
NO_SSH = "Check the address, and that `ssh` to that host works from here."
NO_REGISTRY = r"no such host|dial tcp|connection refused.*registry|TLS handshake|i/o timeout|Client\.Timeout exceeded"
NO_SPACE = r"no space left on device"
# moby daemon: nvidia_linux.go until 28, and since 29, which looks for a vendor among its CDI devices first.
NO_GPU_RUNTIME = r"could not select device driver|failed to discover GPU vendor from CDI|no known GPU vendor found"
REFUSED_LOGIN = r"unauthorized|authentication required|access denied|(?<!permission )denied:|no basic auth credentials"
NO_DEVICE = r'device information while adding custom device "{}[^"]*": no such file'  # moby daemon/oci_linux.go
COPY_IT = "`vllmray image copy` copies it from another host."

# (pattern in the daemon's text, hint); the first that is found counts.
HINTS: tuple[tuple[str, str], ...] = (
    # moby daemon/create.go
    (r"No such image: \S+", "Load it on that host (docker load) or name another with --image."),
    # runc and the kernel: ENOEXEC
    (
        r"exec format error",
        "The image is for another architecture than this host's: name one for this host with --image (docker image "
        "inspect shows an image's Architecture, docker info the host's).",
    ),
    # runc
    (
        r'exec: "python3?": executable file not found',
        "The image has no Python on its PATH, so it has no vLLM and Ray either; name another with --image.",
    ),
    (r'exec: "[^"]+": permission denied', "The image's user may not run that program; name another with --image."),
    (r"lookup init binary", "Install Podman's init on that host: the package catatonit."),  # podman, libpod
    # runc: RLIMIT_NOFILE is 7, RLIMIT_MEMLOCK is 8
    (
        r"setting rlimit type 8",
        "This daemon may not raise the locked-memory limit: give --memlock default, or run it with CAP_SYS_RESOURCE.",
    ),
    (
        r"setting rlimit type 7",
        "This daemon may not raise the open-files limit: give --nofile default, or run it with CAP_SYS_RESOURCE.",
    ),
    (
        NO_DEVICE.format("/dev/infiniband"),
        "That host has no RDMA device: load the driver of its adapter (ls /dev/infiniband), or leave out --rdma.",
    ),
    (
        NO_DEVICE.format("/dev/(?:kfd|dri)"),
        "That host has no AMD GPU with a driver: load amdgpu (ls /dev/kfd /dev/dri), or choose another --accelerator.",
    ),
    (NO_DEVICE.format(""), "That host has no such device: load its driver there (ls shows the file then)."),
    (
        NO_GPU_RUNTIME,
        "Install the NVIDIA container toolkit on that host and restart its daemon, or use --accelerator cpu.",
    ),
    (
        r"unresolvable CDI devices",  # moby daemon/cdi.go
        "Renew that host's list of CDI devices: nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml",
    ),
    # libnvidia-container: NVIDIA_REQUIRE_CUDA, an image's own variable
    (
        r"unsatisfied condition: (?:cuda|driver)",
        "That host's NVIDIA driver is too old for this image: update the driver (nvidia-smi shows the newest CUDA that "
        "it can), or name an image for an older CUDA with --image.",
    ),
    (
        r"unsatisfied condition",
        "The image asks for another GPU or driver than that host has (its NVIDIA_REQUIRE_… variables); name another "
        "image with --image.",
    ),
    # libnvidia-container and the NVIDIA container runtime
    (r"unknown device", "That host has no such GPU: name one that `nvidia-smi -L` lists there (--gpus)."),
    (r"nvidia-container-cli|nvidia-smi|NVML", "Check that nvidia-smi works on that host."),
    # moby volume/mounts/validate.go, daemon/container_unix.go
    (r"bind source path does not exist: \S+", "Make that folder on the host, or correct the path."),
    (
        r"error while creating mount source path",
        "The daemon can't make that folder: make it on the host, or name another (--model-cache-dir, --volume).",
    ),
    # moby daemon/names.go
    (r"is already in use by container", "Remove that container, or choose another cluster name with --cluster."),
    # urllib3, http.client, json: an answer that broke off
    (r"IncompleteRead|Connection broken|InvalidChunkLength|Response ended prematurely|Read timed out", BROKEN_OFF),
    # OpenSSH
    (r"Host key verification failed", "Run `ssh` to that host once, and check and accept its host key."),
    (r"Permission denied \(publickey", "Check that `ssh` to that host works without a password from here."),
    (r"ssh: (?:connect to host|Could not resolve)", NO_SSH),
    # docker SDK and requests
    (
        r"PermissionError|\[Errno 13\]|permission denied while trying to connect",
        "Run as a user who may use that Docker socket (group docker), or use sudo.",
    ),
    (
        r"Connection aborted|RemoteDisconnected",
        "Check that a Docker daemon listens on that socket there (docker info).",
    ),
    # address.py
    (r"the Docker context .* does not exist", "See `docker context ls`; or name the daemon with --host."),
    # containerd and registries
    (
        r"toomanyrequests|too many requests|pull rate limit",
        f"The registry's rate limit for this host is reached: log in to it (docker login), or wait; or {COPY_IT}",
    ),
    (REFUSED_LOGIN, "Log in on this machine with `docker login`, or check the name."),
    (NO_REGISTRY, f"The host can't reach the image's registry; {COPY_IT}"),
    (
        r"no matching manifest|no match for platform|does not provide the specified platform|"
        r"does not match the specified platform",
        "The registry has no image of that name for this host's architecture: name one that it has with --image "
        "(docker manifest inspect lists the architectures of an image).",
    ),
    (r"manifest unknown|not found: manifest", "The registry has no image of that name and tag; check --image."),
    (NO_SPACE, "Free some disk space on that host (docker system df shows what Docker holds)."),
    # docker SDK and requests
    (
        r"FileNotFoundError|\[Errno 2\]|Connection refused|ConnectionRefused|timed out|Error while fetching server",
        NO_DAEMON,
    ),
    (
        r"Invalid bind address|Bind address needs|Invalid path|URL scheme",
        "A Docker address is unix://…, tcp://… or ssh://….",
    ),
)


# A registry's connection that broke, or that it refused for now (Go's net/http and containerd's words; HTTP statuses).
BROKEN = (
    r"unexpected EOF|\bEOF$|connection reset|broken pipe|TLS handshake timeout|i/o timeout|Client\.Timeout|"
    r"request canceled|stream error|toomanyrequests|too many requests|\bstatus\b[^\n]{0,20}\b(?:429|5\d\d)\b"
)

# (pattern in the last line of the text, reason); where none is found the line itself is the reason, as with ssh's.
REASONS: tuple[tuple[str, str], ...] = (
    (r"PermissionError|\[Errno 13\]", "permission denied"),
    (r"FileNotFoundError|\[Errno 2\]", "no such file or directory"),
    (r"ConnectionRefused|\[Errno (?:111|61)\]", "connection refused"),
    (r"NameResolutionError|Name or service not known|nodename nor servname|getaddrinfo", "DNS lookup failed"),
    (r"^timed out|TimeoutError|ConnectTimeout|ReadTimeout|Read timed out", "timed out"),
    (r"RemoteDisconnected", "connection closed without an answer"),
    (r"ConnectionReset", "connection reset by peer"),
)


def explain(host: str, what: str, text: str, *, broken: bool = False) -> HostError:
    """An error that says which host and what failed, in the daemon's words, with a hint where one is known.

    Args:
        broken: the connection to the daemon itself broke off.
    """
    hint = _hint(text)
    kind = _kind(text.strip(), broken=broken)
    if kind is BrokenConnectionError:
        hint = hint or BROKEN_OFF
    return kind(f"{host}: could not {what}", details=text.strip()[:2000], hint=hint)


def unreachable(host: str, text: str, *, what: str | None = None, broken: bool = False) -> HostError:
    """The error for a daemon that can't be reached: there is no connection to it, or its first request got no answer.

    Args:
        text: the words of the Docker SDK or of ssh.
        what: could not be done therefore; None where connecting was all that was asked.
        broken: a retry may work.
    """
    hint = _hint(text) or (NO_SSH if host.startswith("ssh://") else NO_DAEMON)
    not_done = f"; could not {what}" if what else ""
    message = f"cannot reach Docker at {host}: {_reason(text)}{not_done}"
    return _kind(text.strip(), broken=broken)(message, details=text.strip()[:2000], hint=hint)


def _hint(text: str) -> str | None:
    return next((hint for pattern, hint in HINTS if re.search(pattern, text, re.IGNORECASE)), None)


def _reason(text: str) -> str:
    last = (text.strip().splitlines() or [""])[-1].strip()
    return next((reason for pattern, reason in REASONS if re.search(pattern, last)), last[:200].rstrip("."))


def _kind(text: str, *, broken: bool) -> type[HostError]:
    if re.search(NO_GPU_RUNTIME, text, re.IGNORECASE):
        return NoGpuRuntimeError
    if broken and not re.search(r"Permission denied", text):  # which stays so
        return BrokenConnectionError
    return BrokenConnectionError if re.search(BROKEN, text, re.IGNORECASE) else HostError
