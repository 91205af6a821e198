"""config.json: what is read of it, and that whatever is wrong with it is said by the field's name."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from vllmray.errors import ConfigError
from vllmray.model.layouts import HostGpus, layouts
from vllmray.model.limits import longest_context
from vllmray.model.memory import GIB, Engine
from vllmray.model.model import Model, model_of
from vllmray.model.rules import Parallelism, broken_rules

MODELS = Path(__file__).parents[2] / "data/models"
KNOWN = json.loads((MODELS / "parameters.json").read_text())
FUZZED = 10_000
ASKED = Parallelism(2, 2, 4096)
TWO_GPUS = [HostGpus("host", (80 * GIB,) * 2)]


TEXTS = {name: (MODELS / f"{name}.json").read_text() for name in KNOWN}


def raw(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(TEXTS[name])
    return found


def model(name: str, **changes: Any) -> Model:
    return model_of(raw(name) | changes, name)


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_the_parameters_of_a_real_model_are_within_one_percent(name: str) -> None:
    """Counted on the meta device by transformers or vLLM: tests/oracle/count_parameters.py."""
    assert model(name).shape.parameters == pytest.approx(KNOWN[name]["parameters"], rel=0.01)


def test_there_are_models_of_at_least_forty_architectures() -> None:
    assert len({model(name).shape.config.architecture for name in KNOWN}) >= 40


def test_the_language_model_of_a_multimodal_one_is_found() -> None:
    config = model("gemma-3-27b").shape.config
    assert (config.num_hidden_layers, config.num_attention_heads, config.model_type) == (62, 32, "gemma3_text")
    assert config.has_other_parts
    assert config.architecture == "Gemma3ForConditionalGeneration"


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("llama-3.1-70b", 131072),  # scaled already
        ("gpt2", 1024),
        ("opt-125m", 2048),
        ("falcon-mamba-7b", None),
        ("mpt-7b", 2048),
        ("gemma-3-27b", 131072),
    ],
)
def test_the_longest_context_is_what_vllm_derives(name: str, tokens: int | None) -> None:
    assert longest_context(raw(name)) == tokens


def test_rope_that_is_scaled_by_vllm_lengthens_the_context() -> None:
    config = {"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 4.0}}
    assert longest_context(config) == 16384
    assert longest_context(config | {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}) == 4096


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_hidden_layers": None}, "num_hidden_layers: is missing"),
        ({"hidden_size": "wide"}, "hidden_size: not a whole number"),
        ({"num_attention_heads": -8}, "num_attention_heads: too small"),
        ({"vocab_size": 10**12}, "vocab_size: too large"),
        ({"num_hidden_layers": True}, "num_hidden_layers: not a whole number"),
        ({"intermediate_size": 1.5}, "intermediate_size: not a whole number"),
        ({"quantization_config": {"bits": "four"}}, "quantization.bits: not a whole number"),
    ],
)
def test_what_is_wrong_is_said_by_the_fields_name(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        model("llama-3.1-8b", **change)
    assert said in str(caught.value.details)
    assert caught.value.message == "config.json of llama-3.1-8b is invalid"


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("nemotron-h-8b", {"hybrid_override_pattern": "M-M"}, "hybrid_override_pattern: lists 3 of 52 layers"),
        ("gpt-oss-20b", {"layer_types": ["full_attention"]}, "layer_types: lists 1 of 24 layers"),
    ],
)
def test_a_list_of_layers_that_ends_early_is_said_to(name: str, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        model(name, **change)
    assert said in str(caught.value.details)


def test_every_problem_of_a_file_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        model("llama-3.1-8b", hidden_size=None, vocab_size=-1, num_hidden_layers="x")
    assert str(caught.value.details).count("\n") == 2


def test_ten_thousand_damaged_files_give_a_config_error_or_a_model_and_never_a_traceback() -> None:
    chance = random.Random(20261124)
    names = sorted(KNOWN)
    refused = 0
    for _ in range(FUZZED):
        config = raw(chance.choice(names))
        for _ in range(chance.randint(1, 4)):
            _damage(config, chance)
        try:
            made = model_of(config, "fuzzed")
            assert made.shape.parameters >= 0
            assert isinstance(broken_rules(made.shape, made.longest_context, ASKED), list)
            assert layouts(made, TWO_GPUS, Engine(4096), ASKED, across=False)
        except ConfigError as error:
            refused += 1
            problems = error.details
            assert problems
    assert refused > FUZZED / 20


WRONG: list[Any] = [
    *(None, True, "", "x", "9" * 30, -1, 0, 1, 7, 2**31, 10**30, 1.5, -0.0, float("inf"), float("nan")),
    *([], {}, [1, 2], ["a"], [None], {"a": 1}, [[1]], {"rope_type": 3, "factor": "x"}),
]


def _damage(config: dict[str, Any], chance: random.Random) -> None:
    """Change one thing somewhere."""
    place: Any = config
    while True:
        key = chance.choice(list(place) or ["new"])
        inner = place.get(key)
        if not isinstance(inner, dict) or chance.random() < 0.4:
            break
        place = inner
    if chance.random() < 0.25:
        place.pop(key, None)
    else:
        place[key] = chance.choice(WRONG)
