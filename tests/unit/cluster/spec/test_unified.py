"""How much of the memory that GPU and host share is the engine's."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.support import card, config
from vllmray.cluster.spec import unified
from vllmray.config.models import ClusterConfig
from vllmray.engine.options import engine_options
from vllmray.payload.protocol import Card, Swap

GIB, KIB = 1024**3, 1024
SPARK = Card(**card(127600748 * KIB, free=118566368 * KIB, unified=True, name="NVIDIA GB10"))
BUSY = Card(**card(127600748 * KIB, free=102 * GIB, unified=True, name="NVIDIA GB10"))
GPU = config(accelerator="nvidia")


@pytest.mark.parametrize(
    ("free", "share"), [(118566368 * KIB, 0.86), (102 * GIB, 0.77), (20 * GIB, 0.09), (4 * GIB, -0.04)]
)
def test_the_host_keeps_8_gib_of_what_is_available(free: int, share: float) -> None:
    spark = Card(**card(127600748 * KIB, free=free, unified=True))
    assert unified.share_left([spark]) == share
    assert spark.free - share * spark.total >= 8 * GIB
    assert spark.free - (share + 0.01) * spark.total < 8 * GIB


def test_a_gpu_with_memory_of_its_own_leaves_the_share_to_vllm() -> None:
    assert unified.share_left([Card(**card(free=40 * GIB))]) is None
    assert unified.with_share(GPU, None) is GPU
    assert (unified.words([Card(**card())], GPU), unified.too_large([Card(**card())], GPU)) == ("", "")


def test_the_tightest_gpu_decides() -> None:
    assert unified.share_left([SPARK, BUSY, Card(**card(free=GIB))]) == 0.77


def test_the_share_is_an_argument_of_the_engine_that_vllm_reads_as_that() -> None:
    args = ("--enforce-eager", "--served-model-name", "a", "b")
    chosen = unified.with_share(config(accelerator="nvidia", vllm_args=args), 0.86)
    assert chosen.vllm_args == (*args, "--gpu-memory-utilization=0.86")
    assert engine_options(chosen.vllm_args).gpu_memory_utilization == 0.86


@pytest.mark.parametrize(
    "args", [("--gpu-memory-utilization", "0.5"), ("--gpu-mem=0.5",), ("--load-format=ipc_cache",)]
)
def test_a_share_that_is_stated_or_that_vllm_does_not_ask_for_stays(args: tuple[str, ...]) -> None:
    wanted = config(accelerator="nvidia", vllm_args=args)
    assert unified.with_share(wanted, 0.86) is wanted


@pytest.mark.parametrize("share", [0.92, 0.95, 0.09, -0.04])
def test_a_share_above_the_usual_or_not_worth_a_start_is_not_taken(share: float) -> None:
    assert unified.with_share(GPU, share) is GPU
    assert unified.with_share(config(), 0.5) == config()  # simulated GPUs have no memory


@pytest.mark.parametrize(
    ("args", "share"),
    [
        (["--enforce-eager", "--gpu-memory-utilization=0.86"], 0.86),
        (["--gpu-memory-utilization=0.86", "--enforce-eager"], None),
        (["--gpu-memory-utilization", "0.86"], None),
        (["--gpu-memory-utilization=x"], None),
        ([], None),
        (None, None),
        ("--gpu-memory-utilization=0.86", None),
    ],
)
def test_the_share_that_an_engine_was_given_is_found_again(args: object, share: float | None) -> None:
    assert unified.kept_share(args) == share


def test_what_the_engine_takes_is_said_in_figures() -> None:
    assert unified.words([SPARK], unified.with_share(GPU, unified.share_left([SPARK]))) == (
        "unified memory: 113.1 of 121.7 GiB are available, the engine takes 104.7 (--gpu-memory-utilization 0.86)"
    )


def stated(share: str) -> ClusterConfig:
    return config(accelerator="nvidia", vllm_args=("--gpu-memory-utilization", share))


def test_a_stated_share_that_leaves_the_host_too_little_is_said_with_one_that_does_not() -> None:
    assert unified.too_large([SPARK], stated("0.9")) == (
        "unified memory: 113.1 of 121.7 GiB are available, the engine takes 109.5 (--gpu-memory-utilization 0.9), "
        "which leaves 3.6 GiB for Ray, vLLM's own processes and everything else: the host may stop answering; "
        "--gpu-memory-utilization 0.86 leaves 8"
    )
    assert unified.too_large([SPARK], stated("0.86")) == ""
    assert unified.too_large([SPARK], GPU) == ""  # up to with_share


def test_a_share_of_more_than_is_available_is_one_that_vllm_refuses() -> None:
    assert unified.refused([SPARK], stated("0.95")) == (
        "unified memory: 113.1 of 121.7 GiB are available, the engine takes 115.6 (--gpu-memory-utilization 0.95): "
        "vLLM will not start; --gpu-memory-utilization 0.86 leaves the host 8"
    )
    assert unified.too_large([SPARK], stated("0.95")) == ""
    assert unified.refused([SPARK], stated("0.9")) == ""
    full = replace(SPARK, free=9 * GIB)
    assert unified.refused([full], GPU).endswith("(--gpu-memory-utilization 0.92): vLLM will not start")


def test_a_worker_says_what_the_head_may_ask_for() -> None:
    assert unified.most_words([BUSY]) == (
        "unified memory: 102.0 of 121.7 GiB are available; the engine can take 93.7 here (--gpu-memory-utilization "
        "0.77 with the head's `up`)"
    )
    assert unified.most_words([Card(**card())]) == ""


def test_swap_is_worth_a_warning_where_the_gpu_shares_the_hosts_memory() -> None:
    used = Swap(total=16777212 * KIB, used=524032 * KIB)
    assert unified.swap_words([SPARK], used) == (
        "16.0 GiB of swap are on, 0.5 GiB of it in use, and the GPU shares the host's memory: when that runs short, "
        "the host swaps and stops answering instead of ending a process. Turn it off there: sudo swapoff -a"
    )
    assert "16.0 GiB of swap are on, and" in unified.swap_words([SPARK], Swap(16777212 * KIB, 0))
    assert unified.swap_words([SPARK], Swap(0, 0)) == ""
    assert unified.swap_words([SPARK], None) == ""
    assert unified.swap_words([Card(**card())], used) == ""
