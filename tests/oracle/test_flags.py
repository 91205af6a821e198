"""Our reading of the arguments after -- against vLLM's own parser."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.rig.model import CPU_PYTHON
from tests.unit.config.test_vllm_config import FILE
from vllmray.config.vllm_config import with_config_file
from vllmray.engine.flags import read_flags

PROGRAM = Path(__file__).with_name("vllm_flags.py")
LISTED = Path(__file__).parents[2] / "src/vllmray/engine/vllm_flags.json"
# Arguments -> the destination that vLLM's parser gives a value, and the value as text; None where it refuses them.
CASES: tuple[tuple[tuple[str, ...], dict[str, str] | None], ...] = (
    (("--max_num_seqs", "8"), {"max_num_seqs": "8"}),
    (("--max-num-b=2k",), {"max_num_batched_tokens": "2000"}),
    (("--data-parallel-size-l", "2"), {"data_parallel_size_local": "2"}),
    (("--data-par", "2"), None),
    (("-n2",), {"nnodes": "2"}),
    (("-r", "1"), {"node_rank": "1"}),
    (("-t", "2"), {"tensor_parallel_size": "2"}),
    (("-qfp8",), {"quantization": "fp8"}),
    (("-q=fp8",), {"quantization": "fp8"}),
    (("--head",), {"headless": "True"}),
    (("--ud", "/s"), {"uds": "/s"}),
    (("--gr",), None),
    (("--no-enable-prefix-caching",), {"enable_prefix_caching": "False"}),
    (
        ("--served-model-name", "a b", "c", "--enforce-eager"),
        {"served_model_name": "['a b', 'c']", "enforce_eager": "True"},
    ),
    (("--enforce-eager", "true"), {"enforce_eager": "True", "model_tag": "true"}),
    (("-O3",), {"optimization_level": "3"}),
    (("-O", "1"), {"optimization_level": "1"}),
    (("--device-memory-utilization", "0.5"), {"gpu_memory_utilization": "0.5"}),
    (("--max-model-len", "-1"), {"max_model_len": "-1"}),
    (("--hf_overrides.text_config.rope_theta", "2k"), {"hf_overrides": "{'text_config': {'rope_theta': 2000}}"}),
)


def asked(*lines: str) -> list[str]:
    """What the program prints."""
    if not CPU_PYTHON.exists():
        if os.environ.get("CI") == "true":
            pytest.fail("CI leaves nothing out, but there is no .venv-cpu here")
        pytest.skip("no .venv-cpu here: scripts/test makes it")
    done = subprocess.run(
        [str(CPU_PYTHON), str(PROGRAM)],
        input="\n".join(lines), capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    return done.stdout.splitlines()


def test_the_list_of_flags_is_that_of_the_vllm_in_use() -> None:
    assert asked() == LISTED.read_text().splitlines()


def test_flags_are_read_as_vllms_parser_reads_them() -> None:
    answers = [json.loads(line) for line in asked(*(json.dumps(args) for args, _ in CASES))]
    assert answers == [expected for _, expected in CASES]
    for args, expected in CASES:
        ours = read_flags(args)
        named = {flag.name.removeprefix("--").replace("-", "_") for flag in ours.flags}
        if expected is None:
            assert any(len(flag.names) > 1 for flag in ours.flags), args
        else:
            assert named == expected.keys() - {"model_tag"}, args
            assert bool(ours.strays) == ("model_tag" in expected), args


def test_a_file_of_flags_means_what_vllm_takes_it_for(tmp_path: Path) -> None:
    file = tmp_path / "engine.yaml"
    file.write_text(FILE)
    args = ("--max-num-seqs", "4", "--config", str(file))
    theirs, ours = map(json.loads, asked(json.dumps(args), json.dumps(with_config_file(args))))
    assert theirs["max_num_seqs"] == "4"
    assert ours == theirs
