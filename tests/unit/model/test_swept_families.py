"""What families say otherwise than others: figures that vLLM gave for tests/data/architectures.json (tests/oracle)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vllmray.model.memory import Engine, kept_of, stage_weights
from vllmray.model.model import Model, model_of
from vllmray.model.rules import Parallelism, broken_rules

ARCHITECTURES = json.loads((Path(__file__).parents[2] / "data" / "architectures.json").read_text())
ENGINE = Engine(max_model_len=1024)


def known(architecture: str) -> Model:
    return model_of(ARCHITECTURES[architecture]["config"], architecture)


@pytest.mark.parametrize(
    ("architecture", "size", "weights"),
    [
        ("InternVLForConditionalGeneration", 1, 22855032832),  # tied, says the file outside its text section
        ("JinaForRanking", 1, 22873137152),  # no head over the vocabulary
        ("ApertusForCausalLM", 1, 13959192704),  # no gate
        ("GPTBigCodeForCausalLM", 4, 143768064),  # feed-forward layers whole on every GPU
        ("BertForMaskedLM", 4, 102684276),  # a second head, whole
        ("DeepseekV4ForCausalLM", 4, 39982248220),  # compressors are not quantised
    ],
)
def test_weights_are_what_vllm_gives_the_family(architecture: str, size: int, weights: int) -> None:
    shape = known(architecture).shape
    ours = stage_weights(shape, shape.layers, ENGINE, tensor_parallel_size=size, first=True, last=True)
    assert ours == pytest.approx(weights, rel=0.01)


@pytest.mark.parametrize(
    ("architecture", "token"),
    [
        ("DbrxForCausalLM", 163840),  # heads of keys in a section of their own
        ("ChatGLMModel", 458752),  # a number of groups that is not in use
        ("LlamaBidirectionalModel", 0),  # attends both ways
        ("HYV4ForCausalLM", 39168),  # no layer is said to be sparse: no indexer
    ],
)
def test_a_token_takes_what_vllm_gives_the_family(architecture: str, token: int) -> None:
    shape = known(architecture).shape
    kept = kept_of(shape.layers, shape.config, ENGINE, tensor_parallel_size=1)
    assert sum(each for each, _ in kept.token) == token


def test_the_outputs_of_an_audio_tower_must_be_divisible() -> None:
    model = known("GraniteSpeechForConditionalGeneration")
    assert not broken_rules(model.shape, None, Parallelism(2))
    assert "42 outputs of the audio tower" in str(broken_rules(model.shape, None, Parallelism(4))[0])


def test_latent_attention_that_is_switched_off_with_zeros_is_read() -> None:
    assert not known("DeepseekOCRForCausalLM").shape.kv_unknown
